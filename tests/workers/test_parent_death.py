"""A worker's processes die with the one that started them, where nobody is left to end them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

FORKS = """
import os, sys, threading, time
from local_llm_worker import parent_death
parent_death.install()
def fork_twice():
    if os.fork() == 0:
        if os.fork() == 0:
            print(os.getpid(), flush=True)
        time.sleep(600)
fork_twice()
time.sleep(600)
"""

FORKS_IN_A_THREAD = """
import os, threading, time
from local_llm_worker import parent_death
parent_death.install()
def fork():
    if os.fork() == 0:
        while len(os.listdir(f"/proc/{parent}/task")) > 1:
            time.sleep(0.01)
        print(os.getpid(), flush=True)
        time.sleep(600)
parent = os.getpid()
thread = threading.Thread(target=fork)
thread.start()
thread.join()
time.sleep(600)
"""

SPAWNS = """
import multiprocessing, os, time
from local_llm_worker import parent_death
def sleep():
    print(os.getpid(), flush=True)
    time.sleep(600)
if __name__ == "__main__":
    parent_death.install()
    multiprocessing.get_context("spawn").Process(target=sleep).start()
    time.sleep(600)
else:
    parent_death.die_with_spawner()
"""

TRACKED = """
import os, time
from multiprocessing import resource_tracker
from local_llm_worker import parent_death
parent_death.install()
resource_tracker.ensure_running()
print(resource_tracker._resource_tracker._pid, flush=True)
time.sleep(600)
"""


@contextmanager
def running(tmp_path: Path, program: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The program, and the process whose id it prints."""
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workers")}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        below = psutil.Process(int(process.stdout.readline()))
        try:
            yield process, below
        finally:
            process.kill()
            if below.is_running():
                below.kill()


def until_stopped(process: psutil.Process) -> None:
    """The kernel takes its time; a process that died instead fails the test."""
    deadline = time.monotonic() + 30
    while process.status() != psutil.STATUS_STOPPED:
        assert process.is_running()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_grandchild_dies_with_its_grandparent(tmp_path: Path) -> None:
    """Each fork takes it over anew, though the kernel forgets it at a fork."""
    with running(tmp_path, FORKS) as (process, below):
        process.kill()
        below.wait(10)


def test_the_end_of_a_thread_is_no_parents_death(tmp_path: Path) -> None:
    """The kernel's signal comes when the thread that forked ends: such a child does not ask for it."""
    with running(tmp_path, FORKS_IN_A_THREAD) as (_, below):
        assert below.is_running()
        assert below.status() != psutil.STATUS_ZOMBIE


def test_a_spawned_process_dies_with_its_parent(tmp_path: Path) -> None:
    """As vLLM starts its engine where it may not fork."""
    with running(tmp_path, SPAWNS) as (process, below):
        process.kill()
        below.wait(10)


def test_a_resource_tracker_outlives_its_parent(tmp_path: Path) -> None:
    """It has to unlink what the others left, and ends by itself."""
    with running(tmp_path, TRACKED) as (process, tracker):
        tracker.suspend()
        until_stopped(tracker)
        process.kill()
        process.wait(10)
        until_stopped(tracker)
        tracker.resume()
        tracker.wait(10)
