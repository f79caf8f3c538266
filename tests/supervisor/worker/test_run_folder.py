"""The run's folder, and what becomes of older ones."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_llm.worker import run_folder
from local_llm.worker.noted_processes import NOTES_FILE, boot_id, end_noted, start_ticks
from local_llm.worker.run_folder import RunFolder


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of the test's own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="p-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def base(place: Path) -> Path:
    """Where the runs of this user are."""
    folder = place / f"local-llm-run-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    return folder


def dead_run(base: Path, name: str = "r-dead") -> Path:
    """What a supervisor left that was killed: the lock with its words, held by nobody."""
    run = base / name
    run.mkdir()
    (run / "supervisor.lock").write_text(f"{run_folder._MAGIC}{{}}\n")
    (run / "w1").mkdir()
    (run / "w1" / "left").touch()
    return run


def test_a_living_run_is_left_alone(place: Path) -> None:
    """Two supervisors at the same time do not remove one another's folders; the last one tidies up."""
    with RunFolder() as first:
        with RunFolder() as second:
            assert first.path.is_dir()
            assert second.path.is_dir()
        assert first.path.is_dir()
    assert list(place.iterdir()) == []


def test_a_dead_run_is_removed(base: Path) -> None:
    """Its lock says that this program made it, and nobody holds it."""
    run = dead_run(base)
    with RunFolder():
        assert not run.exists()


@pytest.mark.parametrize("name", ["local-llm-interface", "local-llm-models", "local-llm-abc12345"])
def test_what_bears_a_like_name_is_not_touched(place: Path, name: str) -> None:
    """A clone, the user's models, the work folder of a test: however old, they are no run's."""
    folder = place / name
    folder.mkdir()
    (folder / "precious").touch()
    os.utime(folder, (time.time() - 3600,) * 2)
    with RunFolder():
        pass
    assert (folder / "precious").exists()


@pytest.mark.parametrize("lock", [None, "", "locked\n"])
def test_what_lies_in_the_base_without_our_lock_stays(base: Path, lock: str | None) -> None:
    """No lock, an empty one, another program's: nothing says that it is ours."""
    folder = base / "r-foreign"
    folder.mkdir()
    (folder / "precious").touch()
    if lock is not None:
        (folder / "supervisor.lock").write_text(lock)
    os.utime(folder, (time.time() - 3600,) * 2)
    with RunFolder():
        pass
    assert (folder / "precious").exists()


def test_nothing_is_removed_through_a_link(base: Path, tmp_path: Path) -> None:
    """Neither a run that is a link, nor a lock that is one, nor what a dead run links to."""
    precious = dead_run(tmp_path, "precious")
    (base / "r-link").symlink_to(precious)
    locked_by_link = base / "r-lock"
    locked_by_link.mkdir()
    (locked_by_link / "supervisor.lock").symlink_to(precious / "supervisor.lock")
    run = dead_run(base)
    (run / "elsewhere").symlink_to(precious)
    (run / "w1" / "elsewhere").symlink_to(precious)
    with RunFolder():
        assert not run.exists()
    assert (precious / "w1" / "left").exists()
    assert locked_by_link.exists()


@pytest.mark.parametrize("what", ["file", "link", "open to all"])
def test_a_base_that_is_not_ours_is_not_used(
    place: Path, tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A fresh folder is, the log says so, and nothing is looked for in the other."""
    name = place / f"local-llm-run-{os.geteuid()}"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    if what == "file":
        name.touch()
    elif what == "link":
        name.symlink_to(target)
    else:
        name.mkdir()
        name.chmod(0o777)
    run = dead_run(target if what == "link" else name) if what != "file" else None
    with caplog.at_level(logging.WARNING), RunFolder() as folder:
        assert not folder.path.is_relative_to(name)
        assert folder.path.stat().st_mode & 0o077 == 0
    assert "is not used for temporary files" in caplog.text
    assert run is None or run.exists()
    assert [each.name for each in place.iterdir()] == [name.name]


def rmtree_that_fails(
    path: str, *, ignore_errors: bool = False, onerror: Callable[..., object] | None = None
) -> None:
    """As on a file system that was remounted read-only."""
    if onerror is not None:
        onerror(None, path, None)


def test_what_cannot_be_removed_is_tried_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock goes last: half a removal still says whose folder it was."""
    run = dead_run(base)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", rmtree_that_fails)
        with RunFolder():
            assert (run / "supervisor.lock").exists()
    with RunFolder():
        assert not run.exists()


def test_long_paths_are_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unix sockets live in there, and their paths are limited to 107 bytes."""
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with RunFolder() as folder:
        assert len(os.fsencode(folder.make("w12345"))) + 1 + 36 <= 107


def test_a_base_that_vanishes(place: Path) -> None:
    """The last run of another supervisor took it along: it is made again."""
    with RunFolder() as first:
        base = first.path.parent
    assert not base.exists()
    with RunFolder() as second:
        assert second.path.parent == base


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that nobody would end."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_what_a_dead_runs_notes_prove_is_ended(base: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Supervisor and nanny were killed together, and something lived on."""
    run = dead_run(base)
    (run / "w1" / NOTES_FILE).write_text(f"{boot_id()} {sleeper.pid} {start_ticks(sleeper.pid)}\n")
    with RunFolder():
        assert sleeper.wait(10) == -9
        assert not run.exists()


@pytest.mark.parametrize("what", ["another start", "another boot", "nonsense", "ourselves"])
def test_other_processes_live_on(tmp_path: Path, sleeper: subprocess.Popen[bytes], what: str) -> None:
    """A process id alone proves nothing: it may have been given away again."""
    ticks = start_ticks(sleeper.pid)
    assert ticks is not None
    (tmp_path / NOTES_FILE).write_text(
        {
            "another start": f"{boot_id()} {sleeper.pid} {ticks - 1}\n",
            "another boot": f"00000000-0000-0000-0000-000000000000 {sleeper.pid} {ticks}\n",
            "nonsense": f"{sleeper.pid}\n{boot_id()} {sleeper.pid}\n\xff {boot_id()} x y z\n",
            "ourselves": f"{boot_id()} {os.getpid()} {start_ticks(os.getpid())}\n",
        }[what]
    )
    assert end_noted(tmp_path) == []
    assert sleeper.poll() is None


def test_two_that_start_at_once() -> None:
    """Each makes its folder while the others look for dead ones; none loses its own."""
    program = (
        "import sys; from local_llm.worker.run_folder import RunFolder\n"
        "for _ in range(50):\n"
        "    with RunFolder() as folder: folder.make('w1')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "supervisor")}
    running = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [each.wait(120) for each in running] == [0, 0, 0]
