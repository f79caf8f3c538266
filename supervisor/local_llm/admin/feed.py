"""What happens in the server, as it happens, for those who listen: its log lines, structured.

Everything that matters is logged already, each thing once and with its reason. So the feed is one more
handler of those records, which exists only while somebody listens.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from local_llm.errors import Overloaded, ShuttingDown

OURS = logging.getLogger("local_llm")

KINDS = {
    "local_llm.worker.phases": "state",
    "local_llm.worker.progress": "progress",
    "local_llm.access": "request",
}
"""By logger; all others are `log`."""

BUFFERED_EVENTS = 1_000
"""Per listener. One that reads too slowly loses the oldest, and is told how many."""

MOST_LISTENERS = 16


class Listener:
    """One listener's events, until it takes them. Events may come from any thread.

    Attributes:
        over: set when no more will come.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[bytes] = deque()
        self._lost = 0
        self._news = asyncio.Event()
        self.over = asyncio.Event()

    def offer(self, event: bytes) -> None:
        """Takes an event in; never waits."""
        if len(self._events) >= BUFFERED_EVENTS:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._loop.call_soon_threadsafe(self._news.set)

    def end(self) -> None:
        """No more will come. On the event loop only."""
        self.over.set()
        self._news.set()

    async def take(self, within_seconds: float) -> bytes:
        """All events there are; waits for the first of them, not longer than it may."""
        try:
            await asyncio.wait_for(self._news.wait(), within_seconds)
        except asyncio.TimeoutError:
            return b""
        self._news.clear()
        events = list(self._events)
        self._events.clear()
        if self._lost:
            events.insert(0, event_bytes("lost", {"events": self._lost}))
            self._lost = 0
        return b"".join(events)


class EventFeed(logging.Handler):
    """Hands the records of our loggers to all listeners."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._listeners: list[Listener] = []
        self._over = False
        self._usual_level = logging.NOTSET

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """A listener, told of everything from now on.

        Raises:
            Overloaded: too many listen.
            ShuttingDown: nothing will be told any more.
        """
        if self._over:
            raise ShuttingDown("The server is shutting down.")
        if len(self._listeners) >= MOST_LISTENERS:
            raise Overloaded(f"{MOST_LISTENERS} clients listen to events already; more may not.")
        listener = Listener()
        if not self._listeners:
            self._begin()
        self._listeners = [*self._listeners, listener]
        try:
            yield listener
        finally:
            self._listeners = [each for each in self._listeners if each is not listener]
            if not self._listeners:
                OURS.removeHandler(self)
                OURS.setLevel(self._usual_level)

    def end(self) -> None:
        """Ends all listening, now and for later: the server is shutting down."""
        self._over = True
        for each in self._listeners:
            each.end()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, in whatever thread."""
        try:
            event = event_bytes(KINDS.get(record.name, "log"), _told(record))
            for each in self._listeners:
                each.offer(event)
        except Exception:  # noqa: BLE001 - logging's own convention: a log line never breaks what logs it
            self.handleError(record)

    def _begin(self) -> None:
        """Workers' own lines are logged at debug; other handlers keep to the level that was set."""
        self._usual_level = OURS.level
        OURS.setLevel(logging.DEBUG)
        OURS.addHandler(self)


def event_bytes(kind: str, data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps(data, default=str)}\n\n".encode()


def _told(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return {
        "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        **(fields if isinstance(fields, dict) else {}),
    }
