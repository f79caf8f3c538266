"""Memory, of the device and of the host."""

# ruff: noqa: N801, N802
# The names are those of NVML.
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import anyio
import psutil
import pytest

from local_llm import gpu

GIB = 1 << 30


class FakeNvml:
    """The part of `pynvml` that is used, with figures of a test's own."""

    class NVMLError(Exception):
        """As in the binding."""

    class NVMLError_NotSupported(NVMLError):
        """As in the binding."""

    def __init__(self) -> None:
        self.used = [2 * GIB]
        self.pids: list[int] = []
        self.memory_supported = True

    def nvmlDeviceGetCount(self) -> int:
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if not self.memory_supported:
            raise self.NVMLError_NotSupported
        return SimpleNamespace(total=24 * GIB, free=24 * GIB - self.used[handle])

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "RTX"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """NVML with one GPU."""
    fake = FakeNvml()
    monkeypatch.setattr(gpu, "_nvml", lambda: fake)
    return fake


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without NVML."""
    monkeypatch.setattr(gpu, "_nvml", lambda: None)


def test_devices(nvml: FakeNvml) -> None:
    """Every GPU with what is free on it."""
    nvml.used.append(24 * GIB)
    first, second = gpu.devices()
    assert (first.index, first.uuid, first.free_bytes, first.used_bytes) == (0, "GPU-0", 22 * GIB, 2 * GIB)
    assert second.free_bytes == 0


def test_shared_memory_boards(nvml: FakeNvml) -> None:
    """Where the GPU has no memory of its own, the host's counts."""
    nvml.memory_supported = False
    (device,) = gpu.devices()
    assert device.total_bytes == gpu.host_memory().total_bytes


async def test_no_gpu(no_nvml: None) -> None:
    """Without NVML there are no devices, nobody holds them, and nothing is waited for."""
    assert gpu.devices() == ()
    assert gpu.holders() == set()
    assert await gpu.wait_memory_back(gpu.devices(), [1], timeout_seconds=0)


@pytest.mark.parametrize(
    "returned",
    [
        lambda nvml: nvml.pids.clear(),
        lambda nvml: nvml.used.__setitem__(0, 2 * GIB + (200 << 20)),
    ],
    ids=["processes left the list", "memory as before"],
)
async def test_memory_comes_back(nvml: FakeNvml, returned: Callable[[FakeNvml], None]) -> None:
    """Either proof is enough."""
    before = gpu.devices()
    nvml.used[0], nvml.pids = 20 * GIB, [4711, 1]
    results: list[bool] = []

    async def wait() -> None:
        results.append(await gpu.wait_memory_back(before, [4711], timeout_seconds=30))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not results
        returned(nvml)
    assert results == [True]


async def test_memory_never_comes_back(nvml: FakeNvml) -> None:
    """With the processes hidden and the memory held, the deadline tells."""
    before = gpu.devices()
    nvml.used[0] = 20 * GIB
    assert not await gpu.wait_memory_back(before, [4711], timeout_seconds=0.2)


def test_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest limit on the way up decides."""

    def limits() -> Iterator[tuple[int, int]]:
        yield 8 * GIB, 3 * GIB
        yield 6 * GIB, 5 * GIB

    monkeypatch.setattr(gpu, "_cgroup_limits", limits)
    host = gpu.host_memory()
    assert host.total_bytes == min(6 * GIB, psutil.virtual_memory().total)
    assert host.free_bytes <= GIB


def test_cgroup_version_2(tmp_path: Path) -> None:
    """From the own cgroup upwards; no limit is "max"; page cache that can go is not used memory."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1\n")
    (inner.parent / "memory.max").write_text("1000\n")
    (inner.parent / "memory.current").write_text("700\n")
    (inner.parent / "memory.stat").write_text("anon 5\ninactive_file 200\n")
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/a/b\n")
    assert list(gpu._cgroup_limits(cgroup, tmp_path)) == [(1000, 500)]


def test_cgroup_version_1_in_a_container(tmp_path: Path) -> None:
    """The path is the host's and does not exist in here; the mount's root is the container's."""
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.limit_in_bytes").write_text("1000\n")
    (memory / "memory.usage_in_bytes").write_text("400\n")
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("5:cpu:/\n4:memory:/docker/abc\n0::/\n")
    assert list(gpu._cgroup_limits(cgroup, tmp_path)) == [(1000, 400)]
