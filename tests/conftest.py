"""What every test is judged by: it leaves no process, no temporary folder and no shared memory behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_LEAVE_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _marks() -> Iterator[None]:
    """What this run leaves can be told from what others leave: own folder for temporary files, own mark.

    The folder's path is short, since Unix sockets live in it. pytest's own folders stay where they are.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    patch.setenv("TMPDIR", folder)
    patch.setenv("XDG_STATE_HOME", folder)
    patch.setenv("FAKE_ENGINE_MARK", str(os.getpid()))
    patch.setattr(tempfile, "tempdir", None)
    # A job in the background of a shell ignores SIGINT, and what it starts does so too (seen under nohup):
    # a Ctrl-C that a test sends would go unheard.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Daemons that escape the program under test come to this process, and are seen.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    yield
    patch.undo()
    left = _alive(_descendants())
    shutil.rmtree(folder)
    assert not left, f"left behind by the whole run: {_shown(left)}"


@pytest.fixture(autouse=True)
def _nothing_left_behind(_marks: None) -> Iterator[None]:
    """Judges one test. What a fixture of wider scope started before the test is that fixture's to end."""
    before = _descendants()
    folders_before = _run_folders()
    yield
    started = [process for process in _descendants() if process not in before and not _below(process, before)]
    _, alive = psutil.wait_procs(started, timeout=_LEAVE_SECONDS)
    alive = _alive(alive)
    shown = _shown(alive)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=_LEAVE_SECONDS)
    assert not alive, f"processes left behind: {shown}"
    if not before:
        folders = _run_folders() - folders_before
        assert not folders, f"temporary folders left behind: {folders}"
        segments = list(Path("/dev/shm").glob(f"fake-engine-{os.getpid()}-*"))
        for segment in segments:
            segment.unlink()
        assert not segments, f"shared memory left behind: {segments}"


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _alive(processes: set[psutil.Process] | list[psutil.Process]) -> list[psutil.Process]:
    """Without zombies, which their parent reaps, and multiprocessing's tracker, which lives with us."""
    alive = []
    for process in processes:
        try:
            dead = process.status() == psutil.STATUS_ZOMBIE
            tracker = "resource_tracker" in " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if not dead and not tracker:
            alive.append(process)
    return alive


def _below(process: psutil.Process, ancestors: set[psutil.Process]) -> bool:
    try:
        return any(parent in ancestors for parent in process.parents())
    except psutil.NoSuchProcess:
        return False


def _shown(processes: list[psutil.Process]) -> list[str]:
    shown = []
    for process in processes:
        try:
            shown.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            shown.append(str(process.pid))
    return shown


def _run_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("local-llm-run-*/*"))
