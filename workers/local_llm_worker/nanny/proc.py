"""What /proc says of processes."""

# ruff: noqa: PTH115, PTH116, PTH123, PTH208
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's place for POSIX shared memory, not a temporary file


class Process(NamedTuple):
    """A line of /proc/PID/stat.

    Attributes:
        state: the kernel's letter: R, S, D (uninterruptible), T (stopped), Z (zombie) ...
        start_ticks: when it was started, in clock ticks since the boot.
    """

    pid: int
    parent: int
    state: str
    name: str
    start_ticks: int


class Segment(NamedTuple):
    """What lies under /dev/shm, by what cannot be borne by another: not by its name.

    sem_open makes a semaphore under another name, maps it, links it and unlinks the first, so a mapped
    ``sem.mp-9jhqjb6z`` reads ``/dev/shm/sem.VIo9lR (deleted)`` for as long as it lives. And a container's
    /dev/shm has inodes of a numbering of its own.
    """

    device: int
    inode: int


def processes() -> Iterator[Process]:
    """Every process that can be seen; those that end meanwhile are left out."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue
        # The name is in parentheses and may hold some itself.
        name_end = stat.rfind(b")")
        name = os.fsdecode(stat[stat.find(b"(") + 1 : name_end])
        fields = stat[name_end + 2 :].split()
        yield Process(int(entry), int(fields[1]), fields[0].decode(), name, int(fields[19]))


def descendants(root: int) -> list[Process]:
    """All processes below `root`, zombies too, in no order."""
    children: dict[int, list[Process]] = {}
    for process in processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    unvisited = [root]
    while unvisited:
        below = children.pop(unvisited.pop(), [])
        found += below
        unvisited += [process.pid for process in below]
    return found


def is_resource_tracker(pid: int) -> bool:
    """Whether it is Python's, or joblib's: what remembers the shared memory that others made, and unlinks it
    when they are gone. Both are started as ``python -c 'from ...resource_tracker import main; main(7)'``."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return False
    return any(word.startswith(b"from ") and b"resource_tracker import main" in word for word in words)


def segments() -> dict[str, Segment]:
    """What is there under /dev/shm, by name."""
    try:
        device = os.stat(SHARED_MEMORY).st_dev
        with os.scandir(SHARED_MEMORY) as entries:
            return {entry.name: Segment(device, entry.inode()) for entry in entries}
    except OSError:
        return {}


def held_segments(pid: int) -> set[Segment]:
    """What the process has mapped or open under our /dev/shm, under whatever name."""
    try:
        device = os.stat(SHARED_MEMORY).st_dev
    except OSError:
        return set()
    return _mapped_segments(pid, device) | _open_segments(pid, device)


def _mapped_segments(pid: int, device: int) -> set[Segment]:
    prefix = os.fsencode(SHARED_MEMORY) + b"/"
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            maps = file.read()
    except OSError:
        return set()
    if prefix not in maps:
        return set()
    # address, permissions, offset, device, inode, path
    fields = (line.split(maxsplit=5) for line in maps.splitlines() if prefix in line)
    there = b"%02x:%02x" % (os.major(device), os.minor(device))
    return {
        Segment(device, int(each[4])) for each in fields if each[3] == there and each[5].startswith(prefix)
    }


def _open_segments(pid: int, device: int) -> set[Segment]:
    found: set[Segment] = set()
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{descriptor}").startswith(SHARED_MEMORY + "/"):
                    status = os.stat(f"{folder}/{descriptor}")
                    if status.st_dev == device:
                        found.add(Segment(device, status.st_ino))
    return found
