"""How far a load is, and whether it still gets on. Pure: lines, figures and times come from outside.

Written against the lines of vLLM 0.32 and of `local_llm_worker.pooling`; the tests have them as recorded. A
line that is not known is no progress, and no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class LoadPhase(str, Enum):
    """What a worker does while it loads. Not every worker does all of it, nor always in this order."""

    ENGINE_START = "engine start"  # imports and configuration; where every load begins
    WEIGHTS = "weights"
    COMPILE = "compile"
    PROFILING = "profiling"
    GRAPH_CAPTURE = "graph capture"
    WARM_UP = "warm-up"
    SERVER_START = "server start"  # the model is there; soon the port is open


COMPUTING = frozenset({LoadPhase.COMPILE, LoadPhase.PROFILING, LoadPhase.GRAPH_CAPTURE})
"""Phases that may be silent for long while they work: CPU time counts as their progress.

In the others it does not: processes of vLLM that wait for one another spin, and would look busy for ever.
"""

READ_BYTES = 4 << 20
"""So much read since the last progress is progress.

A trickle is none: our own probes alone make a server that never gets ready read some hundred bytes each.
"""

CPU_SECONDS = 1.0
"""So much computed since the last progress is progress, in the phases in which it counts."""


class Reading(NamedTuple):
    """What one line says.

    Attributes:
        phase: that the worker is in.
        percent: of the phase; None if the line does not say.
    """

    phase: LoadPhase
    percent: int | None = None


# The first that is found in a line counts. A group is a percentage.
_SIGNS: tuple[tuple[LoadPhase, re.Pattern[str]], ...] = tuple(
    (phase, re.compile(pattern))
    for phase, pattern in (
        (LoadPhase.ENGINE_START, r"^phase: import$"),
        (LoadPhase.WEIGHTS, r"^phase: weights$|Starting to load model "),
        # tqdm's bar in the format that vLLM gives it, whatever loads ("... checkpoint shards", "... using
        # Runai Model Streamer").
        (LoadPhase.WEIGHTS, r"[Ll]oading [\w ()]+: +(\d+)% Completed \|"),
        (LoadPhase.COMPILE, r"Warming up model for the compilation|for vLLM's torch\.compile$"),
        (LoadPhase.COMPILE, r"Dynamo bytecode transform time: |[Gg]raph (?:of|for) compile range "),
        (LoadPhase.PROFILING, r"Model loading took |torch\.compile took |Initial profiling/warmup run took "),
        (LoadPhase.PROFILING, r"Profiling CUDA graph memory: |Available KV cache memory: "),
        (LoadPhase.GRAPH_CAPTURE, r"Capturing [\w -]*CUDA graphs(?: \([^)]*\))?: +(\d+)%\|"),
        (LoadPhase.WARM_UP, r"(?:warmup|CuTeDSL kernels)(?: \([^)]*\))?: +(\d+)%\|"),
        (LoadPhase.WARM_UP, r"[GC]PU KV cache size: |Running FlashInfer autotune |Warming up [A-Z]"),
        (LoadPhase.SERVER_START, r"^phase: ready$|init engine \(.*\) took |Application startup complete"),
        (LoadPhase.SERVER_START, r"Starting vLLM server on "),
    )
)


def read_line(line: str) -> Reading | None:
    """What a line of the log says of the load; None if nothing."""
    for phase, sign in _SIGNS:
        found = sign.search(line)
        if found:
            return Reading(phase, int(found[1]) if sign.groups else None)
    return None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is, for showing.

    Attributes:
        phase: what the worker does.
        percent: of the phase, 0 to 100; None if it does not tell.
        seconds_in_phase: since it began with that.
    """

    phase: LoadPhase
    percent: int | None
    seconds_in_phase: float

    def in_words(self) -> str:
        """`weights 40%`."""
        return self.phase.value if self.percent is None else f"{self.phase.value} {self.percent}%"


class LoadProgress:
    """What is known of one load.

    Progress is a phase that was not there before, a higher per cent of it, or work that the kernel counts
    (`take_use`). A repeated line is none: vLLM complains of "No available shared memory broadcast block"
    every minute, for ever if need be.

    Args:
        at: now; all times are seconds of one monotonic clock.
    """

    def __init__(self, at: float) -> None:
        self._phase = LoadPhase.ENGINE_START
        self._began_at = {self._phase: at}
        self._percent: int | None = None
        self._progress_at = at
        self._counted_bytes = 0
        self._counted_cpu_seconds = 0.0

    def take_line(self, line: str, at: float) -> bool:
        """Takes a line of the log; returns whether it is progress."""
        reading = read_line(line)
        if reading is None:
            return False
        if reading.phase not in self._began_at:
            self._began_at[reading.phase] = at
            self._phase, self._percent = reading.phase, reading.percent
        elif reading.phase is self._phase and (reading.percent or 0) > (self._percent or 0):
            self._percent = reading.percent
        else:
            return False
        self._progress_at = at
        return True

    def take_use(self, bytes_read: int, cpu_seconds: float, at: float) -> None:
        """Takes what the worker's processes have read and computed from their beginning until now."""
        has_read = bytes_read - self._counted_bytes >= READ_BYTES
        has_computed = cpu_seconds - self._counted_cpu_seconds >= CPU_SECONDS and self._phase in COMPUTING
        if has_read or has_computed:
            self._progress_at = at
            self._counted_bytes, self._counted_cpu_seconds = bytes_read, cpu_seconds

    def stalled_seconds(self, at: float) -> float:
        """How long there has been no progress."""
        return at - self._progress_at

    def at(self, at: float) -> Progress:
        """How far it is."""
        return Progress(self._phase, self._percent, at - self._began_at[self._phase])

    def phases(self, at: float) -> list[tuple[LoadPhase, float]]:
        """What it has done so far, each with the seconds that it took."""
        begun = [*self._began_at.items()]
        ends = [*(began_at for _, began_at in begun[1:]), at]
        return [(phase, end - began_at) for (phase, began_at), end in zip(begun, ends, strict=True)]
