"""Device memory, through NVML; without a GPU the host's, through psutil and the cgroup.

Nothing here creates a CUDA context, which would itself hold GPU memory.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as it is now.

    Attributes:
        index: NVML's, which is CUDA's where CUDA_DEVICE_ORDER is PCI_BUS_ID or all GPUs are alike.
        uuid: ``GPU-...``.
        name: for people.
        total_bytes: of its memory.
        free_bytes: of its memory. Both are the host's where the GPU shares the host's memory.
        capability: CUDA's, major and minor; None where the driver does not say.
    """

    index: int
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int] | None = None

    @property
    def used_bytes(self) -> int:
        """What all processes together hold."""
        return self.total_bytes - self.free_bytes


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What this process and its children may use: the smaller of the host's and the cgroup's."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory of a GPU.

    Attributes:
        pid: as NVML numbers it; in a container that may be another name space's.
        device: the GPU's index.
        used_bytes: None where the driver does not say (WSL).
    """

    pid: int
    device: int
    used_bytes: int | None

    def in_words(self) -> str:
        """`python3 (process 4711) 18.2 GiB on GPU 0`."""
        try:
            name = psutil.Process(self.pid).name()
        except psutil.Error:
            name = "a program that cannot be seen from here"
        used = "" if self.used_bytes is None else f" {in_gib(self.used_bytes)}"
        return f"{name} (process {self.pid}){used} on GPU {self.device}"


def in_gib(size_bytes: int) -> str:
    """`18.2 GiB`."""
    return f"{size_bytes / (1 << 30):.1f} GiB"


def devices() -> tuple[Device, ...]:
    """Every GPU that NVML shows; none without a GPU, a driver or NVML. A lost one is left out."""
    return tuple(
        device for nvml, index, handle in _handles() if (device := _device(nvml, index, handle)) is not None
    )


def _handles() -> Iterator[tuple[Any, int, Any]]:
    """The binding, index and handle of every GPU that answers."""
    nvml = _nvml()
    if nvml is None:
        return
    try:
        count = int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as problem:
        _complain_once(f"NVML does not answer: {problem}")
        return
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as problem:  # noqa: PERF203 - there are few
            _complain_once(f"GPU {index} does not answer: {problem}")
        else:
            yield nvml, index, handle


def _device(nvml: Any, index: int, handle: Any) -> Device | None:
    try:
        total_bytes, free_bytes = _memory(nvml, handle)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError as problem:
        _complain_once(f"GPU {index} does not answer: {problem}")
        return None
    return Device(index, str(uuid), str(name), total_bytes, free_bytes, _capability(nvml, handle))


def _capability(nvml: Any, handle: Any) -> tuple[int, int] | None:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except (nvml.NVMLError, AttributeError):  # a driver, or a binding, that does not know the function
        return None
    return int(major), int(minor)


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Total and free bytes."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        # Boards whose GPU shares the host's memory (GB10, Jetson) report none of their own.
        host = host_memory()
        return host.total_bytes, host.free_bytes
    return int(memory.total), int(memory.free)


@functools.cache
def _complain_once(problem: str) -> None:
    """Once a message: those who wait for memory look ten times a second."""
    logger.warning(problem)


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


def holders() -> list[Holder]:
    """The processes that NVML sees on the GPUs, those that hold most first.

    In a container without the host's process ids, NVML shows none, or ids of another name space.
    """
    found: dict[tuple[int, int], Holder] = {}
    for nvml, index, handle in _handles():
        for processes in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            with suppress(nvml.NVMLError):
                for each in processes(handle):
                    used_bytes = None if each.usedGpuMemory is None else int(each.usedGpuMemory)
                    found[index, int(each.pid)] = Holder(int(each.pid), index, used_bytes)
    return sorted(found.values(), key=lambda holder: -(holder.used_bytes or 0))


def memory_by_process() -> dict[int, int]:
    """Bytes on all GPUs of each process of which NVML tells; see `holders`."""
    used: dict[int, int] = {}
    for holder in holders():
        if holder.used_bytes is not None:
            used[holder.pid] = used.get(holder.pid, 0) + holder.used_bytes
    return used


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
