"""The last lines a worker wrote, whatever it writes."""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
from collections import deque
from collections.abc import Callable

import anyio

from local_llm.worker.launch import Identity

logger = logging.getLogger(__name__)

# Enough for the tracebacks of a whole tree of vLLM processes, the first of which tells the cause.
MAX_LINES = 400
MAX_LINE_CHARACTERS = 2_000
_CHUNK_BYTES = 65_536


class LogTail:
    """Reads a worker's stdout and stderr and keeps the end of it.

    Args:
        identity: the worker's, for the log.
        on_line: called with each line that is complete.
    """

    def __init__(self, identity: Identity, on_line: Callable[[str], None]) -> None:
        self._fields = {"worker": identity.worker_id, "model": identity.card.id}
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._unfinished = ""
        self.ended = anyio.Event()

    def last(self, count: int) -> list[str]:
        """The last `count` lines, the unfinished one included, oldest first."""
        lines = [*self._lines, self._unfinished] if self._unfinished.strip() else list(self._lines)
        return lines[-count:] if count > 0 else []

    async def read(self, log_fd: int) -> None:
        """Reads to the end, which comes when no process holds the other side; takes the descriptor."""
        stream = asyncio.StreamReader(limit=_CHUNK_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(log_fd, "rb", buffering=0)
        )
        try:
            while chunk := await stream.read(_CHUNK_BYTES):
                self.feed(chunk)
        finally:
            transport.close()
            self.ended.set()

    def feed(self, chunk: bytes) -> None:
        """Takes what was read. A carriage return ends a line too: progress bars redraw with it."""
        text = self._unfinished + self._decoder.decode(chunk)
        *lines, unfinished = text.replace("\r", "\n").split("\n")
        # A flood is cut, never stored: 100 MB without a line's end cost no more than one line.
        self._unfinished = unfinished[:MAX_LINE_CHARACTERS]
        for line in lines:
            if line.strip():
                self._keep(line[:MAX_LINE_CHARACTERS])

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._on_line(line)
        logger.debug("%s", line, extra={"fields": self._fields})
