"""The answer to one client: begun at most once, and never silently cut."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
from starlette.types import Message, Send

from local_llm.errors import ServiceError
from local_llm.gateway.endpoints import Endpoint

LAST_PIECE_SECONDS = 10.0
"""For an error to a client that has stopped reading."""

EVENT_STREAM = b"text/event-stream"


class Broken(Exception):
    """An answer broke off in a way that only closing the connection can tell the client."""


class Answer:
    """Wraps ASGI's `send`, remembering what has gone out.

    Attributes:
        status: sent to the client; None before.
        sent_bytes: of the body.
        first_byte_at: monotonic seconds; None before.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._event_stream = False
        self.status: int | None = None
        self.sent_bytes = 0
        self.first_byte_at: float | None = None
        self.complete = False

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
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
        start: Message = {"type": "http.response.start", "status": status, "headers": all_headers}
        await self._send(start)

    async def pass_on(self, chunk: bytes) -> None:
        """Sends a piece of the body; waits while the client does not take it."""
        self.sent_bytes += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        """Says that the body is complete."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: ServiceError, endpoint: Endpoint) -> None:
        """Tells `error` in the way that is still open: an answer, or an event in a stream that has begun.

        Raises:
            Broken: neither is; the connection must be closed, so that the client sees it is not whole.
        """
        with anyio.move_on_after(LAST_PIECE_SECONDS) as deadline:
            if self.status is None:
                await self._error_answer(error, endpoint.error_body(error))
            elif self._event_stream and not self.complete:
                await self.pass_on(endpoint.error_event(error))
                await self.end()
            else:
                raise Broken(error.message)
        if deadline.cancelled_caught:
            raise Broken(f"the client takes nothing any more, not even the error: {error.message}")

    async def _error_answer(self, error: ServiceError, body: bytes) -> None:
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers()}
        await self.begin(error.status, [(name.encode(), value.encode()) for name, value in headers.items()])
        await self.pass_on(body)
        await self.end()
