"""How a worker ended, as far as it is known, and in words."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.worker.memory_witness import MemoryWitness


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker's main process ended.

    Attributes:
        exit_code: what it left with; None if a signal killed it or it never ran.
        signal: the number of the signal that killed it; None if it left by itself or never ran.
        last_lines: of its log, oldest first.
        asked: whether it had been asked to stop.
        not_started: why its program never ran; None if it did.
        killed_since: what it did, for which the supervisor killed it unasked; None if it did not.
        memory: what is known of the host's memory, where it may be the reason of an end nobody asked for.
    """

    exit_code: int | None
    signal: int | None
    last_lines: tuple[str, ...]
    asked: bool
    not_started: str | None = None
    killed_since: str | None = None
    memory: str | None = None

    def in_words(self) -> str:
        """The rest of a sentence that begins with "its worker"."""
        if self.not_started is not None:
            return f"could not be started ({self.not_started})"
        if self.killed_since is not None:
            return f"{self.killed_since} and was killed"
        memory = f": {self.memory}" if self.memory else ""
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}{memory}"
        return f"ended with exit code {self.exit_code}{memory}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Outcome:
    """Collects what becomes known of a worker's end; the first that comes of each kind counts.

    Attributes:
        asked: whether it had been asked to stop before it ended.
        nanny_lost: its nanny was killed, and it with that.
    """

    def __init__(self) -> None:
        self.asked = False
        self.nanny_lost = False
        # A nanny that is killed cannot tell how its worker ended; it ends by a SIGKILL as well.
        self._exit: tuple[int | None, int | None] = (None, signal.SIGKILL)
        self._exited = False
        self._witness = MemoryWitness()
        self._not_started: str | None = None
        self._killed_since: str | None = None
        self._memory: str | None = None

    def look(self) -> None:
        """To be called now and then while the worker lives: notes how much memory the host has left."""
        self._witness.look()

    def not_started(self, why: str) -> None:
        """Its program never ran."""
        self._not_started = self._not_started or why

    def killed(self, since: str) -> None:
        """The supervisor kills it, unasked, since it did something; to follow "its worker"."""
        self._killed_since = self._killed_since or since

    def exited(self, code: int | None, number: int | None) -> None:
        """Its main process has ended, just now: with an exit code, or by a signal."""
        self._exit = (code, number)
        self._exited = True
        if self.asked:
            return
        if number == signal.SIGKILL:
            self._memory = self._witness.says()
        elif code:
            self._memory = self._witness.says_of_exit()

    @property
    def by_others(self) -> bool:
        """Whether it ended, or will, for a reason outside of it: asked to, killed, no memory, never begun."""
        killed = self._exited and self._exit[1] in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
        unborn = self._not_started is not None
        return self.asked or killed or unborn or self.nanny_lost or self._memory is not None

    def ended(self, last_lines: Sequence[str]) -> Ended:
        """All that is known."""
        code, number = (None, None) if self._not_started is not None else self._exit
        return Ended(
            code,
            number,
            tuple(last_lines),
            self.asked,
            self._not_started,
            self._killed_since,
            self._memory,
        )
