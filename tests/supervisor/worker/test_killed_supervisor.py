"""SIGKILL to the supervisor: its nannies see to the rest, and the next run to what they cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from local_llm.worker.run_folder import RunFolder
from tests.supervisor.worker.stage import segments

ROOT = Path(__file__).parents[3]


@contextmanager
def supervisor(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A supervisor in a process of its own, with the processes of its one ready worker."""
    command = [sys.executable, "-m", "tests.supervisor.worker.mortal_supervisor", str(folder)]
    path = os.pathsep.join(str(ROOT / each) for each in ("", "supervisor", "workers"))
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_supervisor_killed(tmp_path: Path, number: signal.Signals) -> None:
    """However it dies: nannies, workers, daemons and segments go at once; its folder with the next run."""
    with supervisor(tmp_path) as (process, processes):
        assert len(processes) == 3
        process.send_signal(number)
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        assert not segments()
        (left,) = Path(tempfile.gettempdir()).glob("local-llm-run-*/*")
        assert [each.name for each in left.iterdir()] == ["supervisor.lock"]
        with RunFolder():
            assert not left.exists()


def test_terminal_signals_are_the_supervisors_alone(tmp_path: Path) -> None:
    """A Ctrl-C that reaches every process of the tree but the supervisor ends no nanny."""
    with supervisor(tmp_path) as (process, processes):
        nanny = processes[0]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            nanny.send_signal(number)
        assert os.getsid(nanny.pid) == nanny.pid
        with pytest.raises(psutil.TimeoutExpired):
            nanny.wait(timeout=0.3)
        process.kill()
        psutil.wait_procs(processes, timeout=10)
    with RunFolder():
        pass


def test_supervisor_and_nanny_killed_together(tmp_path: Path) -> None:
    """When nobody was left to clean up, the next run unlinks the segments that were noted."""
    with supervisor(tmp_path) as (process, processes):
        process.send_signal(signal.SIGSTOP)  # it must not sweep for its nanny
        nanny, *below = processes
        (segment,) = segments()
        nanny.kill()
        process.kill()
        for each in below:
            if each.is_running():
                each.kill()
        psutil.wait_procs(processes, timeout=10)
        assert segments() == [segment]
        with RunFolder():
            assert not segments()
