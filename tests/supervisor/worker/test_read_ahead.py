"""The next model's files are read while the present one still works."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.gpu import HostMemory
from local_llm.settings import LoadSettings
from local_llm.worker import read_ahead
from local_llm.worker.read_ahead import ReadAhead, is_remote, pieces

PIECE = 8 << 20


def a_model(folder: Path, name: str = "a", files: int = 2, pieces_each: int = 2) -> ModelCard:
    """Weight files without content that take no disk, and one file that is none."""
    (folder / name).mkdir()
    (folder / name / "tokenizer.json").write_text("{}")
    for number in range(files):
        with (folder / name / f"model-{number}.safetensors").open("wb") as file:
            file.truncate(pieces_each * PIECE)
    return ModelCard(name, folder / name, Kind.CHAT, Engine.VLLM, ())


class Reads:
    """Stands between the reader and the files: counts pieces, and stops at each until told to go on."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.after: Callable[[int], None] = lambda _: None

    def __call__(self, folder: Path, **options: Any) -> Any:
        for size in pieces(folder, **options):
            self.pieces.append(folder.name)
            anyio.from_thread.run_sync(self.after, len(self.pieces))
            yield size


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """What is read in this test."""
    reads = Reads()
    monkeypatch.setattr(read_ahead, "pieces", reads)
    return reads


@asynccontextmanager
async def running(ahead: ReadAhead) -> AsyncIterator[None]:
    """Its task."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ahead.run)
        yield
        tasks.cancel_scope.cancel()


async def test_all_of_it(tmp_path: Path, reads: Reads) -> None:
    """Every weight file, once, and nothing else."""
    card, done = a_model(tmp_path), anyio.Event()
    reads.after = lambda count: done.set() if count == 4 else None
    ahead = ReadAhead(LoadSettings(), lambda _: False)
    async with running(ahead):
        ahead.foresee(card)
        ahead.foresee(card)
        await done.wait()
    assert reads.pieces == ["a"] * 4


@pytest.mark.parametrize("loading", [True, False], ids=["loading", "given up"])
async def test_until_the_load_reads_itself(tmp_path: Path, reads: Reads, loading: bool) -> None:
    """When nobody waits any more: it goes on while the load is on its way, and no longer."""
    card, done = a_model(tmp_path, files=1, pieces_each=5), anyio.Event()
    still = [loading, loading, False]

    def after(count: int) -> None:
        if count == 1:
            ahead.foresee(None)

    def still_wanted(asked: ModelCard) -> bool:
        assert asked == card
        wanted = still.pop(0)
        if not wanted:
            anyio.from_thread.run_sync(done.set)
        return wanted

    reads.after = after
    ahead = ReadAhead(LoadSettings(), still_wanted)
    async with running(ahead):
        ahead.foresee(card)
        await done.wait()
    assert len(reads.pieces) == (3 if loading else 1)


async def test_another_one_is_next(tmp_path: Path, reads: Reads) -> None:
    """Its files come first from then on."""
    first, second = a_model(tmp_path), a_model(tmp_path, "b", files=1)
    done = anyio.Event()

    def after(count: int) -> None:
        if count == 1:
            ahead.foresee(second)
        if reads.pieces[-2:] == ["b", "b"]:
            done.set()

    reads.after = after
    ahead = ReadAhead(LoadSettings(), lambda _: True)
    async with running(ahead):
        ahead.foresee(first)
        await done.wait()
    assert reads.pieces == ["a", "b", "b"]


async def test_no_more_than_memory_allows(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is free; what is read then stays in the cache."""
    monkeypatch.setattr(read_ahead, "host_memory", lambda: HostMemory(8 * PIECE, 5 * PIECE))
    card, other, done = a_model(tmp_path, files=4), a_model(tmp_path, "b", files=1), anyio.Event()
    reads.after = lambda _: done.set() if reads.pieces[-1] == "b" else None
    ahead = ReadAhead(LoadSettings(), lambda _: True)
    async with running(ahead):
        ahead.foresee(card)
        while len(reads.pieces) < 3:  # noqa: ASYNC110 - reads come from a thread
            await anyio.sleep(0.01)
        ahead.foresee(other)
        await done.wait()
    assert reads.pieces[:4] == ["a", "a", "a", "b"]


async def test_off(tmp_path: Path, reads: Reads) -> None:
    """Nothing is read."""
    ahead = ReadAhead(LoadSettings(read_ahead="off"), lambda _: True)
    async with running(ahead):
        ahead.foresee(a_model(tmp_path))
        await anyio.lowlevel.checkpoint()
    assert reads.pieces == []


def test_a_folder_that_vanishes(tmp_path: Path) -> None:
    """Is no error: the load will tell."""
    assert list(pieces(tmp_path / "nowhere", local_only=False)) == []


@pytest.mark.parametrize(
    ("kind", "remote"),
    [("nfs4", True), ("fuse.sshfs", True), ("cifs", True), ("ext4", False), ("overlay", False)],
)
def test_network_file_systems(tmp_path: Path, kind: str, remote: bool) -> None:
    """As the kernel's table of mounts has them."""
    number = tmp_path.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 0:99 / /proc rw shared:5 - proc proc rw\n36 35 {device} / {tmp_path} rw - {kind} source rw\n"
    )
    assert is_remote(mounts, mounts) is remote
