"""What can be said of the host's memory when a worker was killed. A process cannot tell why it was."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from local_llm.gpu import HostMemory, host_memory

_VMSTAT = Path("/proc/vmstat")

# With less than this left, of all there is, the kernel's OOM killer is the first suspect.
_LITTLE_SHARE = 0.05
_LITTLE_BYTES = 1 << 30


class MemoryWitness:
    """Looks now and then, so that it can say how much was free when a worker died.

    After a death its memory is free again, and a look would only show that.
    """

    def __init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Notes how it is now."""
        self._before = host_memory()
        self._kills_before = oom_kills()

    def says(self) -> str:
        """To follow "was killed by SIGKILL": what the kernel's counters suggest. To be asked at once."""
        now = host_memory()
        least = min(self._before, now, key=lambda memory: memory.free_bytes)
        left = f"the host had {least.free_bytes / (1 << 30):.1f} GiB left"
        if oom_kills() > self._kills_before:
            return f"out of memory, as the kernel has it; {left}"
        if _is_little(least):
            return f"probably out of memory, {left}"
        return f"{left}, so somebody else may have sent it"


def _is_little(memory: HostMemory) -> bool:
    return memory.free_bytes < max(_LITTLE_BYTES, _LITTLE_SHARE * memory.total_bytes)


def oom_kills(vmstat: Path = _VMSTAT) -> int:
    """How many processes the kernel has killed for want of memory, so far; 0 if it does not say."""
    with suppress(OSError, ValueError):
        for line in vmstat.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
