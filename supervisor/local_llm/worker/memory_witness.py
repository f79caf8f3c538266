"""What can be said of the host's memory when a worker was killed. A process cannot tell why it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from local_llm.gpu import HostMemory, host_memory, in_gib

_VMSTAT = Path("/proc/vmstat")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")

# vLLM's main process outlives an engine process that the kernel has killed by so long at most.
_RECENT_SECONDS = 60.0

# With less than this left, of all there is, the kernel's OOM killer is the first suspect.
_LITTLE_SHARE = 0.05
_LITTLE_BYTES = 1 << 30


class MemoryWitness:
    """Looks now and then, so that it can say how much was free when a worker died.

    After a death its memory is free again, and a look would only show that.
    """

    def __init__(self) -> None:
        self._kills = oom_kills()
        self._killed_at = -_RECENT_SECONDS
        self._before = host_memory()

    def look(self) -> None:
        """Notes how it is now."""
        self._before = host_memory()
        self._count()

    def says(self) -> str:
        """To follow "was killed by SIGKILL": what the kernel's counters suggest. To be asked at once."""
        least = self._least()
        left = f"the host had {in_gib(least.free_bytes)} left"
        if self._kernel_killed():
            return f"out of memory, as the kernel has it; {left}"
        if _is_little(least):
            return f"probably out of memory, {left}"
        return f"{left}, so somebody else may have sent it"

    def says_of_exit(self) -> str | None:
        """To follow "ended with exit code 1": the kernel may have killed one of its other processes."""
        return self.says() if self._kernel_killed() else None

    def _least(self) -> HostMemory:
        return min(self._before, host_memory(), key=lambda memory: memory.free_bytes)

    def _kernel_killed(self) -> bool:
        self._count()
        return time.monotonic() - self._killed_at < _RECENT_SECONDS

    def _count(self) -> None:
        kills = oom_kills()
        if kills > self._kills:
            self._killed_at = time.monotonic()
        self._kills = kills


def _is_little(memory: HostMemory) -> bool:
    return memory.free_bytes < max(_LITTLE_BYTES, _LITTLE_SHARE * memory.total_bytes)


def oom_kills(vmstat: Path = _VMSTAT, own: Path = _OWN_CGROUPS, root: Path = _CGROUP_ROOT) -> int:
    """How many processes the kernel has killed for want of memory, so far; 0 if it does not say.

    Those of this process' own cgroup, where that is counted: the host's count has other containers' too.
    """
    for counter in (*_own_counters(own, root), vmstat):
        with suppress(OSError, ValueError):
            for line in counter.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _own_counters(own: Path, root: Path) -> Iterator[Path]:
    """Where this process' memory cgroup may count, the nearest first.

    In a container of cgroup version 1 the path is the host's, and the container's cgroup is the root.
    """
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            if hierarchy == "0":
                yield root / path.strip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                yield root / "memory" / path.strip("/") / "memory.oom_control"
                yield root / "memory" / "memory.oom_control"
