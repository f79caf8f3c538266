"""What /proc says of processes."""

# ruff: noqa: PTH115, PTH123, PTH208
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the kernel's place for POSIX shared memory, not a temporary file
_MAPPED_PREFIX = os.fsencode(SHARED_MEMORY) + b"/"


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


def held_shared_memory(pid: int) -> set[str]:
    """Names under /dev/shm that the process has mapped or open, and that nobody has unlinked yet."""
    return mapped_shared_memory(pid) | _open_shared_memory(pid)


def _open_shared_memory(pid: int) -> set[str]:
    names: set[str] = set()
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for descriptor in os.listdir(folder):
            with suppress(OSError):
                target = os.fsencode(os.readlink(f"{folder}/{descriptor}"))
                if target.startswith(_MAPPED_PREFIX) and not target.endswith(b" (deleted)"):
                    names.add(os.fsdecode(target.removeprefix(_MAPPED_PREFIX)))
    return names


def mapped_shared_memory(pid: int) -> set[str]:
    """Names under /dev/shm that the process has mapped and that nobody has unlinked yet."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            maps = file.read()
    except OSError:
        return set()
    if _MAPPED_PREFIX not in maps:
        return set()
    return {
        os.fsdecode(line.partition(_MAPPED_PREFIX)[2])
        for line in maps.splitlines()
        if _MAPPED_PREFIX in line and not line.endswith(b" (deleted)")
    }
