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
    """

    pid: int
    parent: int
    state: str
    name: str


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
        state, parent = stat[name_end + 2 :].split(maxsplit=2)[:2]
        yield Process(int(entry), int(parent), state.decode(), name)


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


def segments() -> dict[str, int]:
    """What is there under /dev/shm: each name with its inode."""
    try:
        with os.scandir(SHARED_MEMORY) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except OSError:
        return {}


def held_segments(pid: int) -> set[int]:
    """Inodes of what the process has mapped or open under our /dev/shm, under whatever name.

    The name would not do: sem_open makes a semaphore under another one, maps it, links it and unlinks the
    first, so a mapped ``sem.mp-9jhqjb6z`` reads ``/dev/shm/sem.VIo9lR (deleted)`` for as long as it lives.
    Nor the inode alone: a container's /dev/shm has a numbering of its own.
    """
    try:
        device = os.stat(SHARED_MEMORY).st_dev
    except OSError:
        return set()
    return _mapped_segments(pid, device) | _open_segments(pid, device)


def _mapped_segments(pid: int, device: int) -> set[int]:
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
    return {int(each[4]) for each in fields if each[3] == there and each[5].startswith(prefix)}


def _open_segments(pid: int, device: int) -> set[int]:
    inodes: set[int] = set()
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{descriptor}").startswith(SHARED_MEMORY + "/"):
                    status = os.stat(f"{folder}/{descriptor}")
                    if status.st_dev == device:
                        inodes.add(status.st_ino)
    return inodes
