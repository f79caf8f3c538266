"""The proofs, one by one; tests/nvml_stand_in tells the whole stories."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from local_llm.errors import LoadFailed
from local_llm.gpu import Device, Holder
from local_llm.worker import memory_back
from local_llm.worker.memory_back import Footprint, refuse_shortage, wait_memory_back

GIB = 1 << 30


class Gpu:
    """One device of 24 GiB, as a test has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used_gib, self.pids, self.there = 2.0, [4711], True
        monkeypatch.setattr(memory_back, "devices", self.devices)
        monkeypatch.setattr(memory_back, "holders", self.holders)
        monkeypatch.setattr(memory_back, "_STEADY_SECONDS", 0.3)

    def devices(self) -> tuple[Device, ...]:
        """Now."""
        free_bytes = int((24 - self.used_gib) * GIB)
        return (Device(0, "GPU-0", "RTX", 24 * GIB, free_bytes),) if self.there else ()

    def holders(self) -> list[Holder]:
        """Now."""
        return [Holder(pid, 0, GIB) for pid in self.pids]

    def footprint(self, *, listed: bool) -> Footprint:
        """Of a worker that began at 2 GiB and now holds 18 more."""
        footprint = Footprint(self.devices())
        self.used_gib = 20.0
        if listed:
            footprint.look({4711, 1})
        return footprint

    def frees(self, gib: float) -> None:
        """Of what is used."""
        self.used_gib -= gib


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """With the worker's process on it."""
    return Gpu(monkeypatch)


@pytest.mark.parametrize(
    ("listed", "wanted_gib", "change"),
    [
        (True, None, lambda gpu: gpu.pids.clear()),
        (False, None, lambda gpu: gpu.frees(17.9)),
        (False, 10, lambda gpu: gpu.frees(12)),
        (False, None, lambda gpu: setattr(gpu, "there", False)),
    ],
    ids=["left the list", "as before", "covers the need", "vanished"],
)
async def test_proofs(gpu: Gpu, listed: bool, wanted_gib: int | None, change: Callable[[Gpu], None]) -> None:
    """Each is enough, and none holds before it."""
    looked = anyio.Event()

    def wanted_bytes() -> int | None:
        looked.set()
        return None if wanted_gib is None else wanted_gib * GIB

    results: list[bool] = []

    async def wait() -> None:
        results.append(await wait_memory_back(gpu.footprint(listed=listed), 30, wanted_bytes))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await looked.wait()
        assert results == []
        change(gpu)
    assert results == [True]


async def test_not_while_it_comes_back(gpu: Gpu) -> None:
    """Enough is free already, and more every moment: the next would be content with a part."""
    footprint = gpu.footprint(listed=False)

    def wanted_bytes() -> int:
        gpu.frees(0.01)
        return GIB

    assert not await wait_memory_back(footprint, 1, wanted_bytes)


async def test_never(gpu: Gpu) -> None:
    """The deadline tells; what is listed and what is not wanted prove nothing."""
    assert not await wait_memory_back(gpu.footprint(listed=True), 0.3, lambda: None)
    gpu.used_gib = 2.0
    assert not await wait_memory_back(gpu.footprint(listed=False), 0.5, lambda: 23 * GIB)


async def test_no_gpu(gpu: Gpu) -> None:
    """Gone is enough, and NVML is not even asked."""
    gpu.holders = None  # type: ignore[method-assign, assignment]
    footprint = Footprint()
    footprint.look({4711})
    assert await wait_memory_back(footprint, 0, lambda: None)


def test_shortage(gpu: Gpu) -> None:
    """Before a launch: said with who holds how much; fine where it fits, or there is no GPU."""
    gpu.used_gib = 20.0
    refuse_shortage("org/a", 4 * GIB, gpu.devices())
    refuse_shortage("org/a", 400 * GIB, ())
    with pytest.raises(
        LoadFailed, match=r"needs 5\.0 GiB .* and 4\.0 GiB of 24\.0 GiB are free\..*1\.0 GiB on GPU 0"
    ):
        refuse_shortage("org/a", 5 * GIB, gpu.devices())
    gpu.pids.clear()
    with pytest.raises(LoadFailed, match="does not tell who"):
        refuse_shortage("org/a", 5 * GIB, gpu.devices())
