"""What is unlinked for a nanny that was killed, and what never is."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llm.worker import shared_memory
from local_llm.worker.shared_memory import Segment, clean_after, unlink_unheld


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /dev/shm, where other tests' nannies are at work. Of its kind: elsewhere maps differ."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="fake-engine-segments-") as folder:
        monkeypatch.setattr(shared_memory, "_SHARED_MEMORY", Path(folder))
        yield Path(folder)


def segment(path: Path) -> Segment:
    status = path.stat()
    return Segment(status.st_dev, status.st_ino)


@pytest.mark.parametrize("name_when_mapped", ["used", "made-under-another-name"])
def test_held_segments_stay(shm: Path, name_when_mapped: str) -> None:
    """What some process still uses is not unlinked, what nobody uses is. Semaphores change their name."""
    used, unused = shm / name_when_mapped, shm / "unused"
    for each in (used, unused):
        each.write_bytes(b"\0" * 4096)
    with used.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 4096)
    both = {segment(used), segment(unused), Segment(1, 1)}
    with mapped:
        used = used.rename(shm / "used")
        assert unlink_unheld(both) == ["unused"]
        assert used.exists()
    with used.open():
        assert unlink_unheld(both) == []
    assert unlink_unheld(both) == ["used"]


def test_notes_cannot_lead_elsewhere(tmp_path: Path, shm: Path) -> None:
    """A worker can write into its folder: a name proves nothing, nor does a number of another device."""
    victim, other = tmp_path / "victim", shm / "other"
    victim.touch()
    other.touch()
    folder = tmp_path / "w1"
    folder.mkdir()
    elsewhere = segment(victim)
    (folder / ".shared-memory").write_text(
        f"../../{victim}\n\nother\n1 2 other\n{elsewhere.device} {elsewhere.inode} ../../{victim}\n"
    )
    clean_after(folder)
    assert victim.exists()
    assert other.exists()
    assert not folder.exists()


def test_a_name_that_was_given_away(tmp_path: Path, shm: Path) -> None:
    """The worker's segment is gone, and another program's bears its name now."""
    path = shm / "sem.x"
    path.touch()
    folder = tmp_path / "w1"
    folder.mkdir()
    noted = segment(path)
    (folder / ".shared-memory").write_text(f"{noted.device} {noted.inode} sem.x\n")
    with path.open():  # so that its number is not given away with the name
        path.unlink()
        path.touch()
        clean_after(folder)
    assert path.exists()


def test_another_users_segments_stay(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could unlink them."""
    path = shm / "theirs"
    path.touch()
    theirs = segment(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert unlink_unheld({theirs}) == []
    assert path.exists()
