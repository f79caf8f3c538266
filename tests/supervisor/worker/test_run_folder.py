"""The run's folder, and what becomes of older ones."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_llm.worker import temporary
from local_llm.worker.temporary import RunFolder, clean_after, unlink_unmapped


@pytest.fixture
def shm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for /dev/shm, where other tests' nannies are at work. Of its kind: elsewhere maps differ."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="fake-engine-segments-") as folder:
        monkeypatch.setattr(temporary, "_SHARED_MEMORY", Path(folder))
        yield Path(folder)


def test_a_living_run_is_left_alone() -> None:
    """Two supervisors at the same time do not remove one another's folders."""
    with RunFolder() as first, RunFolder() as second:
        assert first.path.is_dir()
        assert second.path.is_dir()
    assert not first.path.exists()


def test_a_folder_without_a_lock_is_given_time() -> None:
    """It may be a supervisor that starts this very moment; an old one is nobody's."""
    young = Path(tempfile.mkdtemp(prefix=temporary.PREFIX))
    old = Path(tempfile.mkdtemp(prefix=temporary.PREFIX))
    os.utime(old, (time.time() - 3600,) * 2)
    with RunFolder():
        assert young.exists()
        assert not old.exists()
    young.rmdir()


def test_long_paths_are_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unix sockets live in there, and their paths are limited to 107 characters."""
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with RunFolder() as folder:
        assert len(str(folder.make("w1"))) + 1 + 36 < 107


@pytest.mark.parametrize("name_when_mapped", ["used", "made-under-another-name"])
def test_mapped_segments_stay(shm: Path, name_when_mapped: str) -> None:
    """What some process still uses is not unlinked, what nobody uses is. Semaphores change their name."""
    used, unused = shm / name_when_mapped, shm / "unused"
    for each in (used, unused):
        each.write_bytes(b"\0" * 4096)
    with used.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        used = used.rename(shm / "used")
        assert unlink_unmapped([used.name, unused.name, "never-was"]) == [unused.name]
        assert used.exists()
    assert unlink_unmapped([used.name]) == [used.name]


def test_notes_cannot_lead_elsewhere(tmp_path: Path) -> None:
    """A worker can write into its folder; what it notes there is a name, never a path."""
    victim = tmp_path / "victim"
    victim.touch()
    folder = tmp_path / "w1"
    folder.mkdir()
    (folder / ".shared-memory").write_text(f"../../{victim}\n\n")
    clean_after(folder)
    assert victim.exists()
    assert not folder.exists()


def test_segments_named_after_a_process(tmp_path: Path, shm: Path) -> None:
    """joblib's semaphore of a worker whose nanny was killed goes; that with a like number stays."""
    left, other = shm / "sem.loky-4194301-x", shm / "sem.loky-41943019-x"
    left.touch()
    other.touch()
    clean_after(tmp_path / "nowhere", {4194301})
    assert not left.exists()
    assert other.exists()
