"""What a worker left under /dev/shm, where its nanny was killed and cannot see to it any more.

Unlinks only what a process of the worker was seen to hold, by device and inode, and nobody holds now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# The nanny's notes, a line each: device, inode, name (local_llm_worker.nanny.shared_memory.NOTES_FILE).
_NOTES_FILE = ".shared-memory"
_LARGEST_NOTES_BYTES = 4 << 20

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's place for POSIX shared memory


class Segment(NamedTuple):
    """What lies under /dev/shm, by what cannot be borne by another: not by its name."""

    device: int
    inode: int


def clean_after(temporary: Path, held: Collection[Segment] = ()) -> None:
    """Does what a worker's nanny, or a template, would have done, had it lived: no process of it is left.

    Args:
        temporary: its own folder; it need not exist any more.
        held: what its processes held when they were killed.
    """
    unlink_unheld({*held, *_noted(temporary)})
    shutil.rmtree(temporary, ignore_errors=True)


def unlink_unheld(segments: Collection[Segment]) -> list[str]:
    """Unlinks those segments that no living process holds.

    Returns:
        Their names.
    """
    if not segments:
        return []
    left = {name: each for name, each in _there() if each in segments}
    if left:
        held = {each for pid in _processes() for each in held_by(pid)}
        left = {name: each for name, each in left.items() if each not in held}
    return sorted(name for name, each in left.items() if _unlink(_SHARED_MEMORY / name, each))


def held_by(pid: int) -> set[Segment]:
    """What a process has mapped or open under /dev/shm, under whatever name."""
    try:
        device = _SHARED_MEMORY.stat().st_dev
    except OSError:
        return set()
    return {*_mapped(pid, device), *_open(pid, device)}


def _mapped(pid: int, device: int) -> Iterator[Segment]:
    there = f"{os.major(device):02x}:{os.minor(device):02x}"
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").splitlines():
            # address, permissions, offset, device, inode, path
            if f" {_SHARED_MEMORY}/" in line and line.split(maxsplit=5)[3] == there:
                yield Segment(device, int(line.split(maxsplit=5)[4]))


def _open(pid: int, device: int) -> Iterator[Segment]:
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - numbers
            with suppress(OSError):
                if os.readlink(f"{folder}/{name}").startswith(f"{_SHARED_MEMORY}/"):  # noqa: PTH115
                    status = os.stat(f"{folder}/{name}")  # noqa: PTH116
                    if status.st_dev == device:
                        yield Segment(device, status.st_ino)


def _noted(temporary: Path) -> Iterable[Segment]:
    found: set[Segment] = set()
    with suppress(OSError), (temporary / _NOTES_FILE).open("rb") as file:
        for line in file.read(_LARGEST_NOTES_BYTES).decode(errors="replace").splitlines():
            with suppress(ValueError):
                device, inode, _ = line.split(" ", 2)
                found.add(Segment(int(device), int(inode)))
    return found


def _there() -> Iterable[tuple[str, Segment]]:
    found: Mapping[str, Segment] = {}
    with suppress(OSError):
        device = _SHARED_MEMORY.stat().st_dev
        with os.scandir(_SHARED_MEMORY) as entries:
            found = {entry.name: Segment(device, entry.inode()) for entry in entries}
    return found.items()


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - numbers


def _unlink(path: Path, segment: Segment) -> bool:
    with suppress(OSError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == segment and status.st_uid == os.geteuid():
            path.unlink()
            return True
    return False
