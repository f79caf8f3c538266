"""Memory, of the device and of the host."""

# ruff: noqa: N801, N802
# The names are those of NVML.
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from local_llm import gpu

GIB = 1 << 30


class FakeNvml:
    """A board that the stand-in library (tests/nvml_stand_in) does not play."""

    class NVMLError(Exception):
        """As in the binding."""

    class NVMLError_NotSupported(NVMLError):
        """As in the binding."""

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        raise self.NVMLError_NotSupported

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "GB10"


def test_shared_memory_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the GPU has no memory of its own, the host's counts."""
    monkeypatch.setattr(gpu, "_nvml", FakeNvml)
    (device,) = gpu.devices()
    assert device.total_bytes == gpu.host_memory().total_bytes


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVML there are no devices, and nobody holds them."""
    monkeypatch.setattr(gpu, "_nvml", lambda: None)
    assert gpu.devices() == ()
    assert gpu.holders() == []
    assert gpu.memory_by_process() == {}


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


@pytest.mark.parametrize("answer", [(9, 0), None])
def test_compute_capability(monkeypatch: pytest.MonkeyPatch, answer: tuple[int, int] | None) -> None:
    """Of a driver that knows the function; of any other it is not known."""

    class Knowing(FakeNvml):
        def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
            if answer is None:
                raise self.NVMLError_NotSupported
            return answer

    monkeypatch.setattr(gpu, "_nvml", Knowing)
    assert [device.capability for device in gpu.devices()] == [answer]
    monkeypatch.setattr(gpu, "_nvml", FakeNvml)
    assert [device.capability for device in gpu.devices()] == [None]
