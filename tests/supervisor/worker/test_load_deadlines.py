"""A load goes on as long as it gets on, and no longer."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest

from local_llm.errors import LoadFailed
from local_llm.worker import load_watch
from local_llm.worker.launcher import Launcher
from local_llm.worker.phases import Phase
from local_llm.worker.progress import READ_BYTES, LoadPhase
from local_llm.worker.tree_use import TreeUse
from tests.supervisor.worker.stage import fake_card, fake_settings, until

BAR = "Loading safetensors checkpoint shards:  {percent}% Completed | 2/5 [00:01<00:01,  1.60s/it]"
SPINNING = "No available shared memory broadcast block found in 60 seconds."


async def test_stall_is_told_with_its_phase(tmp_path: Path) -> None:
    """A load that hangs at some per cent is ended, though it repeats itself for ever."""
    lines = ["Starting to load model /m...", BAR.format(percent=40)]
    card = fake_card(tmp_path, log_lines=lines, babble=SPINNING, never_ready=True)
    async with Launcher(fake_settings(tmp_path, stall_seconds=1)) as launcher:
        worker = launcher.worker(card)
        with pytest.raises(
            LoadFailed, match=r"no progress for 1 s \(load\.stall_seconds\) in the phase: weights 40%"
        ):
            await worker.start()


async def test_lines_that_get_on_keep_it_alive(tmp_path: Path) -> None:
    """Twice as long as the deadline for a stall, and never without progress."""
    lines = [
        "phase: import",
        "phase: weights",
        *(BAR.format(percent=p) for p in range(10, 100, 10)),
        "phase: ready",
    ]
    card = fake_card(tmp_path, log_lines=lines, line_seconds=0.4)
    async with Launcher(fake_settings(tmp_path, stall_seconds=2)) as launcher:
        worker = launcher.worker(card)
        await worker.start()
        assert worker.progress.phase is LoadPhase.SERVER_START


async def test_reading_keeps_it_alive(tmp_path: Path) -> None:
    """A slow disk is progress without a word; load.max_seconds ends that, too."""
    card = fake_card(tmp_path, read_on=True, never_ready=True)
    async with Launcher(fake_settings(tmp_path, stall_seconds=1.5, max_seconds=4)) as launcher:
        with pytest.raises(LoadFailed, match=r"not ready within 4 s \(load.max_seconds\); .*: engine start"):
            await launcher.worker(card).start()


async def test_no_stall_deadline(tmp_path: Path) -> None:
    """0 means none."""
    async with Launcher(fake_settings(tmp_path, stall_seconds=0, max_seconds=1)) as launcher:
        with pytest.raises(LoadFailed, match=r"load\.max_seconds"):
            await launcher.worker(fake_card(tmp_path, never_ready=True)).start()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_seconds": 1}, r"not ready within 1 s \(load\.max_seconds\)"),
        ({"stall_seconds": 1}, r"no progress for 1 s \(load\.stall_seconds\)"),
    ],
)
async def test_a_changed_deadline_holds_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, float], words: str
) -> None:
    """For the load that is under way."""
    monkeypatch.setattr(load_watch, "_LOOK_SECONDS", 0.1)
    async with Launcher(fake_settings(tmp_path, max_seconds=600, stall_seconds=600)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, never_ready=True))
        start = asyncio.ensure_future(worker.start())
        await until(lambda: worker.phase is Phase.LOADING)
        launcher.use(fake_settings(tmp_path, **{"max_seconds": 600, "stall_seconds": 600, **changed}))
        with pytest.raises(LoadFailed, match=words), anyio.fail_after(30):
            await start


async def test_progress_is_shown_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While it loads; in steps of ten per cent in the log, with fields for /admin/events."""
    caplog.set_level(logging.INFO, "local_llm.worker.progress")
    lines = ["phase: weights", *(BAR.format(percent=p) for p in (11, 12, 13, 20))]
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, log_lines=lines, never_ready=True))
        assert worker.progress.in_words() == "engine start"
        start = asyncio.ensure_future(worker.start())
        await until(lambda: worker.progress.in_words() == "weights 20%")
        await worker.stop(reason="seen enough", grace_seconds=0)
        with pytest.raises(LoadFailed):
            await start
    told = [record.__dict__["fields"] for record in caplog.records]
    about = {"worker": "w1", "model": "org/a", "phase": "weights"}
    assert told == [{**about, "percent": percent} for percent in (None, 11, 20)]


def test_use_of_a_tree() -> None:
    """What children read and compute is counted, also after they have ended."""
    read = f"file = open('/dev/zero', 'rb'); file.read({READ_BYTES}); print('read', flush=True)"
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('burned', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", f"{read}\n{burn}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    tree = TreeUse(psutil.Process().pid)
    assert child.stdout is not None
    assert child.stdout.readline() == "read\n"
    assert tree.look().bytes_read >= READ_BYTES
    assert child.stdout.readline() == "burned\n"
    use = tree.look()
    assert use.cpu_seconds >= 0.25
    assert child.pid in tree.pids
    child.communicate("\n")
    assert tree.look() >= use


def test_use_of_nothing() -> None:
    """A root that is gone has used nothing more."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert TreeUse(gone.pid).look() == (0, 0.0)


async def test_unreadable_io_counts_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some containers hide /proc/PID/io; CPU time is still seen."""

    def refuse(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "io_counters", refuse)
    process = await anyio.open_process(["sleep", "60"])
    try:
        tree = TreeUse(psutil.Process().pid)
        assert tree.look().bytes_read == 0
        assert process.pid in tree.pids
    finally:
        process.kill()
        await process.aclose()
