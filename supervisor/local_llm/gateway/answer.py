"""The answer to one client: begun at most once, and never silently cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import anyio

from local_llm.errors import ServiceError
from local_llm.gateway.endpoints import Endpoint
from local_llm.http1 import Exchange

LAST_PIECE_SECONDS = 10.0
"""For an error to a client that has stopped reading."""

EVENT_STREAM = b"text/event-stream"


class Broken(Exception):
    """An answer broke off in a way that only closing the connection can tell the client."""


class Answer:
    """Wraps the client's side of the exchange, remembering what has gone out.

    Attributes:
        status: sent to the client; None before.
        sent_bytes: of the body.
        first_byte_at: monotonic seconds; None before.
    """

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        self._exchange = exchange
        self._request_id = request_id.encode()
        self._event_stream = False
        self.status: int | None = None
        self.sent_bytes = 0
        self.first_byte_at: float | None = None
        self.complete = False

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Sends status and headers, which name each header in lower case."""
        self.status = status
        self.first_byte_at = time.monotonic()
        all_headers = [*headers]
        for name, value in headers:
            if name == b"content-type":
                self._event_stream = value.lower().startswith(EVENT_STREAM)
            if name == b"x-request-id":
                break
        else:
            all_headers.append((b"x-request-id", self._request_id))
        self._exchange.begin(status, all_headers)

    def pass_on(self, piece: bytes) -> None:
        """Sends a piece of the body. Look at `blocked` before there is more."""
        self.sent_bytes += len(piece)
        self._exchange.write(piece)

    def end(self) -> None:
        """Says that the body is complete."""
        self.complete = True
        self._exchange.end()

    @property
    def blocked(self) -> bool:
        """Whether the client does not take what was sent; ask for more when it is `writable`."""
        return self._exchange.blocked

    def when_writable(self, tell: Callable[[], None]) -> None:
        """Has `tell` called, once, when it does again."""
        self._exchange.when_writable(tell)

    async def writable(self) -> None:
        """Waits for the same."""
        await self._exchange.writable()

    async def fail(self, error: ServiceError, endpoint: Endpoint) -> None:
        """Tells `error` in the way that is still open: an answer, or an event in a stream that has begun.

        Raises:
            Broken: neither is; the connection must be closed, so that the client sees it is not whole.
        """
        with anyio.move_on_after(LAST_PIECE_SECONDS) as deadline:
            await self.writable()
        if deadline.cancelled_caught:
            raise Broken(f"the client takes nothing any more, not even the error: {error.message}")
        if self.status is None:
            self._error_answer(error, endpoint.error_body(error))
        elif self._event_stream and not self.complete:
            self.pass_on(endpoint.error_event(error))
            self.end()
        else:
            raise Broken(error.message)

    def _error_answer(self, error: ServiceError, body: bytes) -> None:
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
        self.begin(error.status, [(name.encode(), value.encode()) for name, value in headers.items()])
        self.pass_on(body)
        self.end()
