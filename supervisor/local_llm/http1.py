"""uvicorn's HTTP/1.1, deaf to offers of another protocol, and with an end to a request's head."""

from __future__ import annotations

import json
import re

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from local_llm.errors import HeadTooLarge, InvalidRequest, ServiceError

OFFER = re.compile(rb"(?<=\r\n)Upgrade(?=:)", re.IGNORECASE)
PASSED_OVER = b"X-Offer"
"""As long as the name it stands for: should it ever be put into a body, its length would still be right."""

MAX_HEAD_BYTES = 64 << 10
"""Of request line and headers, as uvicorn's other parser has it. httptools collects them without an end,
before any key is looked at."""


class Http1Protocol(HttpToolsProtocol):
    """Takes a POST that offers to upgrade as the HTTP/1.1 request it is (RFC 9110, 7.8, allows that).

    Java's HttpClient, and with it LangChain4j and Spring, offers HTTP/2 by default, the body right behind
    the header. httptools takes that body for the other protocol's first bytes: the request arrived empty.
    """

    _between_requests = True
    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what has come."""
        if self._between_requests and data.startswith(b"POST ") and OFFER.search(data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = OFFER.sub(PASSED_OVER, head) + end + body
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLarge(f"The headers are larger than {MAX_HEAD_BYTES} bytes."))

    def on_message_begin(self) -> None:
        """Called by the parser.

        The answer may end by `state["abort"]`. Closing waits until the client has taken all that was sent,
        which a stalled one never does.
        """
        self._between_requests, self._in_head = False, True
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._between_requests = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in OpenAI's shape."""
        self._refuse(InvalidRequest(f"This is no request in HTTP/1.1: {msg}"))

    def _refuse(self, error: ServiceError) -> None:
        """Tells why this became no request, unless that would be in the midst of an answer, and closes."""
        if self.cycle is None or self.cycle.response_complete:
            body = json.dumps(error.body()).encode()
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[error.status] + head % len(body) + body)
        self.transport.close()
