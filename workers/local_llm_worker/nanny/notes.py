"""Which processes a worker had: for the next start of the supervisor, should it be killed with the nanny."""

# ruff: noqa: PTH118, PTH123
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from local_llm_worker.nanny.proc import Process

# A line each: boot, process id, start in clock ticks (local_llm.worker.noted_processes reads it).
PROCESSES_FILE = ".processes"

_MOST_NOTED = 10_000
"""Of a worker that starts processes without end, the first."""


class ProcessNotes:
    """Writes down each process once.

    Args:
        temporary: the worker's temporary folder.
    """

    def __init__(self, temporary: str) -> None:
        self._path = os.path.join(temporary, PROCESSES_FILE)
        self._noted: set[tuple[int, int]] = set()
        self._boot = _boot_id()

    def note(self, processes: Iterable[Process]) -> None:
        """Notes those that are new."""
        new = {(each.pid, each.start_ticks) for each in processes} - self._noted
        if not new or len(self._noted) >= _MOST_NOTED:
            return
        self._noted |= new
        # A full disk must not stop the nanny: it needs no notes itself.
        with suppress(OSError), open(self._path, "a") as file:
            file.writelines(f"{self._boot} {pid} {ticks}\n" for pid, ticks in sorted(new))


def _boot_id() -> str:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return "unknown"
