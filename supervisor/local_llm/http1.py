"""uvicorn's HTTP/1.1, deaf to offers of another protocol, with an end to a request's head, and a short way
for answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from local_llm.errors import HeadTooLarge, InvalidRequest, ServiceError

OFFER = re.compile(rb"(?<=\r\n)Upgrade(?=:)", re.IGNORECASE)
PASSED_OVER = b"X-Offer"
"""As long as the name it stands for: should it ever be put into a body, its length would still be right."""

MAX_HEAD_BYTES = 64 << 10
"""Of request line and headers, as uvicorn's other parser has it. httptools collects them without an end,
before any key is looked at."""

STATUSES_WITHOUT_BODY = frozenset({204, 304})


class Exchange:
    """One request and its answer on their connection, for the data path; found in `scope["state"]`.

    ASGI's `send` takes a coroutine, a dictionary and two searches in every header; what a worker sends
    comes by callback, and is written from there. Who uses this leaves ASGI's `send` alone. To know that the
    client left takes no task either.
    """

    __slots__ = ("_chunked", "_cycle", "_protocol")

    def __init__(self, protocol: Http1Protocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._chunked = False

    @property
    def body_has_come(self) -> bool:
        """Whether one `receive` has the request's whole body, or what is left of it."""
        return not self._cycle.more_body

    @property
    def left(self) -> bool:
        """Whether the client closed its connection."""
        return self._cycle.disconnected

    @property
    def blocked(self) -> bool:
        """Whether the client is slow to take what was written: write no more until it is `writable`."""
        return self._protocol.flow.write_paused and not self._cycle.disconnected

    async def writable(self) -> None:
        """Waits until the client has taken most of what was written, or left."""
        await self._protocol.flow.drain()

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Writes the head.

        Args:
            status: of the answer.
            headers: in lower case, none of which is about the connection; without a content-length the body
                is sent in chunks.
        """
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        sized = status in STATUSES_WITHOUT_BODY
        for name, value in (*cycle.default_headers, *headers):
            sized = sized or name == b"content-length"
            lines += (name, b": ", value, b"\r\n")
        self._chunked = not sized
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        if self._chunked:
            lines.insert(-1, b"transfer-encoding: chunked\r\n")
        cycle.transport.write(b"".join(lines))

    def write(self, piece: bytes) -> None:
        """Writes a piece of the body, which is not empty, at once."""
        if not self._cycle.disconnected:
            self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def end(self) -> None:
        """Says that the body is whole."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        if self._chunked:
            cycle.transport.write(b"0\r\n\r\n")
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()

    def when_left(self, tell: Callable[[], None]) -> None:
        """Has `tell` called when the client leaves; reads on, for that is how it is noticed."""
        self._protocol.tell_left = tell
        self._protocol.flow.resume_reading()

    def forget(self, tell: Callable[[], None]) -> None:
        """Does not have `tell` called any more."""
        if self._protocol.tell_left == tell:  # else it is the next request's on this connection by now
            self._protocol.tell_left = None

    def when_writable(self, tell: Callable[[], None]) -> None:
        """Has `tell` called once when the client has taken most of what was written; not if it leaves."""
        self._protocol.tell_writable = tell

    def abort(self) -> None:
        """Breaks the connection off, for the client to see. Closing would wait until it has taken all that
        was sent, which a stalled one never does."""
        self._protocol.transport.abort()


class Http1Protocol(HttpToolsProtocol):
    """Takes a POST that offers to upgrade as the HTTP/1.1 request it is (RFC 9110, 7.8, allows that).

    Java's HttpClient, and with it LangChain4j and Spring, offers HTTP/2 by default, the body right behind
    the header. httptools takes that body for the other protocol's first bytes: the request arrived empty.

    Attributes:
        tell_left: called when the connection is lost.
        tell_writable: called, once, when the client takes again what is written.
    """

    tell_left: Callable[[], None] | None = None
    tell_writable: Callable[[], None] | None = None

    _between_requests = True
    _in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what has come."""
        if self._between_requests and data.startswith(b"POST "):
            data = _without_offer(data)
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLarge(f"The headers are larger than {MAX_HEAD_BYTES} bytes."))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        super().connection_lost(exc)
        if self.tell_left is not None:
            self.tell_left()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        super().resume_writing()
        tell, self.tell_writable = self.tell_writable, None
        if tell is not None:
            tell()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._between_requests, self._in_head = False, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        super().on_headers_complete()
        exchange = Exchange(self, self.cycle)
        self.scope["state"].update(exchange=exchange, abort=exchange.abort)

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


def _without_offer(data: bytes) -> bytes:
    head, end, body = data.partition(b"\r\n\r\n")
    if b"upgrade:" not in head.lower():  # the expression alone would take as long as all of the parser
        return data
    return OFFER.sub(PASSED_OVER, head) + end + body
