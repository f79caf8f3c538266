"""Device memory, through NVML; without a GPU the host's, through psutil and the cgroup.

Nothing here creates a CUDA context, which would itself hold GPU memory.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil

logger = logging.getLogger(__name__)

# Drivers keep a little of what a process had; below this the memory counts as returned.
_RETURNED_WITHIN_BYTES = 256 << 20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as it is now.

    Attributes:
        index: NVML's, which is CUDA's where CUDA_DEVICE_ORDER is PCI_BUS_ID or all GPUs are alike.
        uuid: ``GPU-...``.
        name: for people.
        total_bytes: of its memory.
        free_bytes: of its memory. Both are the host's where the GPU shares the host's memory.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int

    @property
    def used_bytes(self) -> int:
        """What all processes together hold."""
        return self.total_bytes - self.free_bytes


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What this process and its children may use: the smaller of the host's and the cgroup's."""

    total_bytes: int
    free_bytes: int


def devices() -> tuple[Device, ...]:
    """Every GPU that NVML shows; none without a GPU, a driver or NVML."""
    nvml = _nvml()
    if nvml is None:
        return ()
    try:
        return tuple(
            _device(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index))
            for index in range(nvml.nvmlDeviceGetCount())
        )
    except nvml.NVMLError as problem:
        logger.warning("NVML does not answer: %s", problem)
        return ()


def _device(nvml: Any, index: int, handle: Any) -> Device:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total_bytes, free_bytes = int(memory.total), int(memory.free)
    except nvml.NVMLError_NotSupported:
        # Boards whose GPU shares the host's memory (GB10, Jetson) report none of their own.
        host = host_memory()
        total_bytes, free_bytes = host.total_bytes, host.free_bytes
    return Device(
        index,
        str(nvml.nvmlDeviceGetUUID(handle)),
        str(nvml.nvmlDeviceGetName(handle)),
        total_bytes,
        free_bytes,
    )


@functools.cache
def _nvml() -> Any | None:
    """The binding with NVML initialised, once; None where there is no NVML."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        logger.info("no GPU: %s", problem)
        return None
    return pynvml


def holders() -> set[int]:
    """Ids of the processes that NVML sees on any GPU.

    In a container without the host's process ids, NVML shows none, or ids of another name space.
    """
    nvml = _nvml()
    if nvml is None:
        return set()
    pids: set[int] = set()
    with suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            pids |= {int(each.pid) for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    return pids


async def wait_memory_back(before: Collection[Device], pids: Collection[int], timeout_seconds: float) -> bool:
    """Waits until an ended worker's GPU memory is free again.

    Args:
        before: the devices as they were before its launch; none (no GPU) means at once.
        pids: its processes, as far as they are known.
        timeout_seconds: how long to wait at most.

    Returns:
        Whether it is back: NVML listed its processes and does so no more, or on every device no more
        than 256 MiB are used beyond what was before.
    """
    if not before:
        return True
    was_listed = False
    with anyio.move_on_after(timeout_seconds):
        while True:
            listed = bool(holders().intersection(pids))
            was_listed = was_listed or listed
            if (was_listed and not listed) or _as_before(before):
                return True
            await anyio.sleep(_POLL_SECONDS)
    return False


def _as_before(before: Collection[Device]) -> bool:
    now = {device.uuid: device.used_bytes for device in devices()}
    return all(now.get(old.uuid, 0) <= old.used_bytes + _RETURNED_WITHIN_BYTES for old in before)


def host_memory() -> HostMemory:
    """The host's memory, or the cgroup's where that is less."""
    host = psutil.virtual_memory()
    total_bytes, free_bytes = host.total, host.available
    for limit_bytes, used_bytes in _cgroup_limits():
        total_bytes = min(total_bytes, limit_bytes)
        free_bytes = min(free_bytes, max(0, limit_bytes - used_bytes))
    return HostMemory(total_bytes, free_bytes)


def _cgroup_limits(
    proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every memory cgroup from this process's own up to the root."""
    with suppress(OSError):
        for line in proc.read_text().splitlines():
            hierarchy, controllers, path = line.split(":", 2)
            if hierarchy == "0":
                yield from _limits_upwards(mount, path, "memory.max", "memory.current")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
                yield from _limits_upwards(mount / "memory", path, *names)


def _limits_upwards(mount: Path, path: str, limit_name: str, used_name: str) -> Iterator[tuple[int, int]]:
    """In a container the own path may not exist under the mount; its root is then the container's."""
    folder = mount / path.strip("/")
    while True:
        with suppress(OSError, ValueError):  # ValueError: "max", no limit
            limit_bytes = int((folder / limit_name).read_text())
            yield limit_bytes, _reclaimed(folder, int((folder / used_name).read_text()))
        if folder == mount or mount not in folder.parents:
            return
        folder = folder.parent


def _reclaimed(folder: Path, used_bytes: int) -> int:
    """Use less the page cache that the kernel gives up first; reading a model's files fills it."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return max(0, used_bytes - int(value))
    return used_bytes
