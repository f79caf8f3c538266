"""The processes of a dead run's workers: ended only where the nanny's notes prove that they are those."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

# The name the nanny writes its notes under (local_llm_worker.nanny.notes.PROCESSES_FILE).
NOTES_FILE = ".processes"
_LARGEST_NOTES_BYTES = 4 << 20

_END_SECONDS = 10.0


def boot_id() -> str:
    """The kernel's name for the time since it was started: process ids mean nothing beyond it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since the boot; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(stat[stat.rindex(b")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def end_noted(folder: Path) -> list[int]:
    """Kills the processes that a dead nanny noted and that live on, and waits for their end.

    Args:
        folder: the worker's.

    Returns:
        Their ids. A process with a noted id that was started at another time is not one of them.
    """
    ended: list[int] = []
    with ExitStack() as stack:
        descriptors = []
        for pid, ticks in _noted(folder):
            with suppress(OSError):
                # First the descriptor, then the look: what is killed is what was looked at.
                descriptor = os.pidfd_open(pid)
                stack.callback(os.close, descriptor)
                if start_ticks(pid) == ticks and pid != os.getpid():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    descriptors.append(descriptor)
                    ended.append(pid)
        _wait_for(descriptors)
    if ended:
        logger.warning("killed what a dead supervisor's worker left: %s", ended)
    return ended


def _noted(folder: Path) -> set[tuple[int, int]]:
    """Process ids and start times of this boot."""
    found: set[tuple[int, int]] = set()
    boot = boot_id()
    try:
        with (folder / NOTES_FILE).open("rb") as file:
            lines = file.read(_LARGEST_NOTES_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        with suppress(ValueError):
            noted_boot, pid, ticks = line.split()
            if noted_boot == boot:
                found.add((int(pid), int(ticks)))
    return found


def _wait_for(descriptors: list[int]) -> None:
    until = time.monotonic() + _END_SECONDS
    poll = select.poll()
    for each in descriptors:
        poll.register(each, select.POLLIN)
    left = len(descriptors)
    while left and (seconds := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(seconds * 1000):
            poll.unregister(descriptor)
            left -= 1
