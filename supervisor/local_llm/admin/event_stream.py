"""GET /admin/events: the feed as server-sent events, to one client."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local_llm.admin.feed import EventFeed, Listener

HEARTBEAT_SECONDS = 15.0
"""Proxies give up connections on which nothing comes for a minute."""

LAST_EVENTS_SECONDS = 1.0
"""For a client to take the last ones when the server shuts down; then its connection is broken off."""


class EventStream(Response):
    """Answers until the client leaves or the server shuts down."""

    media_type = "text/event-stream"

    def __init__(self, feed: EventFeed) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's events, from now on."""
        with self._feed.listening() as listener:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_when_client_leaves, receive, tasks.cancel_scope)
                tasks.start_soon(_abort_when_over, listener, scope["state"]["abort"])
                if scope["method"] != "HEAD":
                    await self._write(listener, send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                tasks.cancel_scope.cancel()

    async def _write(self, listener: Listener, send: Send) -> None:
        events = b": listening\n\n"
        while True:
            await send({"type": "http.response.body", "body": events, "more_body": True})
            if listener.over.is_set():
                return
            events = await listener.take(HEARTBEAT_SECONDS) or b": still here\n\n"


async def _abort_when_over(listener: Listener, abort: Callable[[], None]) -> None:
    """A client that reads nothing would hold up the shutdown as long as that may take."""
    await listener.over.wait()
    await anyio.sleep(LAST_EVENTS_SECONDS)
    abort()


async def _cancel_when_client_leaves(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
