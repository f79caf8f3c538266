"""What a worker's processes have used so far, as the kernel counts it."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import psutil


class Use(NamedTuple):
    """Since the processes began; what has ended meanwhile is included as last seen.

    Attributes:
        bytes_read: by system calls or from disks, whatever is more in each process.
        cpu_seconds: in user and kernel mode.
    """

    bytes_read: int
    cpu_seconds: float


class TreeUse:
    """Looks at a process and all below it.

    Args:
        root: its process id; itself not counted.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seen: dict[psutil.Process, Use] = {}

    @property
    def pids(self) -> set[int]:
        """Ids of all processes that were ever seen."""
        return {process.pid for process in self._seen}

    def look(self) -> Use:
        """What all of them have used. Walks through /proc: for a thread.

        What the kernel does not show counts as nothing: in some containers /proc/PID/io cannot be read.
        """
        with suppress(psutil.Error):
            for process in psutil.Process(self._root).children(recursive=True):
                with suppress(psutil.Error):
                    self._seen[process] = Use(_bytes_read(process), _cpu_seconds(process))
        return Use(
            sum(use.bytes_read for use in self._seen.values()),
            sum(use.cpu_seconds for use in self._seen.values()),
        )


def _bytes_read(process: psutil.Process) -> int:
    # read() is counted in the one, pages of a mapped file only in the other.
    try:
        counters = process.io_counters()
    except (psutil.AccessDenied, OSError):
        return 0
    return max(int(counters.read_chars), int(counters.read_bytes))


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
