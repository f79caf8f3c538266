"""The deadlines of a load: it ends when it gets on no more, and at the latest after a set time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import anyio

from local_llm.settings import LoadSettings
from local_llm.worker.launch import Identity
from local_llm.worker.progress import LoadPhase, LoadProgress, Progress
from local_llm.worker.tree_use import Use

logger = logging.getLogger("local_llm.worker.progress")

_LOOK_SECONDS = 5.0
_LOGGED_STEP_PERCENT = 10


class LoadWatch:
    """Follows one load.

    Args:
        identity: whose, for the log.
        settings: gives the deadlines as they hold now.
    """

    def __init__(self, identity: Identity, settings: Callable[[], LoadSettings]) -> None:
        self._identity = identity
        self._settings = settings
        self._logged: tuple[str, int] | None = None
        self.begin()

    def begin(self) -> None:
        """The load begins now, and its deadlines run."""
        self._began_at = time.monotonic()
        self._progress = LoadProgress(self._began_at)

    @property
    def progress(self) -> Progress:
        """How far the load is now."""
        return self._progress.at(time.monotonic())

    def phases(self, until: float) -> list[tuple[LoadPhase, float]]:
        """What the load has done until then, each with its seconds."""
        return self._progress.phases(until)

    def take_line(self, line: str) -> None:
        """Takes a line of the worker's log."""
        if self._progress.take_line(line, time.monotonic()):
            self._log(self.progress)

    async def until_over(self, look: Callable[[], Use]) -> str:
        """Waits until one of the deadlines has passed.

        Args:
            look: at what the worker's processes have used; called in a thread.

        Returns:
            What happened, to follow "its worker".
        """
        while True:
            now, settings = time.monotonic(), self._settings()
            max_seconds, stall_seconds = settings.max_seconds, settings.stall_seconds or math.inf
            left_seconds = self._began_at + max_seconds - now
            if left_seconds <= 0:
                return (
                    f"was not ready within {max_seconds:g} s (load.max_seconds); "
                    f"its last phase: {self.progress.in_words()}"
                )
            stalled_seconds = self._progress.stalled_seconds(now)
            if stalled_seconds >= stall_seconds:
                return (
                    f"made no progress for {stall_seconds:g} s (load.stall_seconds) "
                    f"in the phase: {self.progress.in_words()}"
                )
            pause = min(_LOOK_SECONDS, stall_seconds / 4, stall_seconds - stalled_seconds)
            await anyio.sleep(min(pause, left_seconds))
            use = await anyio.to_thread.run_sync(look)
            self._progress.take_use(use.bytes_read, use.cpu_seconds, time.monotonic())

    def _log(self, progress: Progress) -> None:
        step = (progress.phase.value, (progress.percent or 0) // _LOGGED_STEP_PERCENT)
        if step == self._logged:
            return
        self._logged = step
        fields = {
            "worker": self._identity.worker_id,
            "model": self._identity.card.id,
            "phase": progress.phase.value,
            "percent": progress.percent,
        }
        logger.info("loading", extra={"fields": fields})
