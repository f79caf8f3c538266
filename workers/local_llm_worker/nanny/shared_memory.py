"""Which shared memory the worker's processes hold, so that what they leave can be unlinked.

The kernel does not say who made a segment. What a process holds it does say, but only while the process
lives. So the nanny looks now and then, and `ending.py` once more at processes that it has stopped before it
kills them. What a process made that somebody else killed, and that nobody saw it hold, stays where it is:
Python's resource tracker unlinks what it knows of, and the rest could be anybody's.
"""

# ruff: noqa: PTH108, PTH118, PTH123
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from local_llm_worker.nanny import proc
from local_llm_worker.nanny.proc import Segment

# In the worker's temporary folder, a line each: device, inode, name. For the supervisor, should the nanny be
# killed (local_llm.worker.shared_memory reads it).
NOTES_FILE = ".shared-memory"

_LAST_SECONDS = 1.0

_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_EVENT_BYTES = 1 << 16


class NewSegments:
    """Wakes a `select` when something appears in /dev/shm; whose it is, it does not say."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            libc.inotify_add_watch(
                self._descriptor, os.fsencode(proc.SHARED_MEMORY), ctypes.c_uint32(_IN_CREATE | _IN_MOVED_TO)
            )

    @property
    def sources(self) -> list[int]:
        """For `select`; none where the kernel gives no more watches (fs.inotify.max_user_instances)."""
        return [self._descriptor] if self._descriptor >= 0 else []

    def forget(self) -> None:
        """What was told up to now is known."""
        with suppress(OSError):
            while os.read(self._descriptor, _EVENT_BYTES):
                pass


class SharedMemory:
    """Segments that appeared after this object was made and that the worker's processes held.

    Args:
        temporary: the worker's temporary folder, where they are noted as well.
    """

    def __init__(self, temporary: str) -> None:
        self._notes_file = os.path.join(temporary, NOTES_FILE)
        self._older = frozenset(proc.segments().values())
        self._noted: set[Segment] = set()

    def unknown(self) -> bool:
        """Whether there are segments of which it is not known that they are ours.

        One `listdir`; reading the maps of a vLLM tree costs some milliseconds, and once its segments
        are noted there is nothing more to find.
        """
        return bool(set(proc.segments().values()) - self._older - self._noted)

    def note(self, pids: Iterable[int]) -> None:
        """Notes what these processes hold now."""
        held: set[Segment] = set()
        for each in pids:
            held |= proc.held_segments(each)
        # A segment that was there before the worker is somebody else's, whoever holds it now.
        held -= self._older | self._noted
        found = {name: each for name, each in proc.segments().items() if each in held}
        if not found:
            return
        self._noted.update(found.values())
        # A full disk must not stop the nanny, which knows them anyway.
        with suppress(OSError), open(self._notes_file, "a") as file:
            file.writelines(f"{each.device} {each.inode} {name}\n" for name, each in found.items())

    def unlink_leftovers(self) -> list[str]:
        """Unlinks what was noted, is still there, and is held by no living process."""
        # By number alone: its name may have changed since (sem_open). tmpfs gives no number twice.
        left = {name: each for name, each in proc.segments().items() if each in self._noted}
        return sorted(name for name in self._unheld(left) if _unlink(name, left[name]))

    def unclaimed(self, died_at: float | None) -> list[str]:
        """What appeared in the last second before the worker's death and nobody holds: perhaps its own.

        To be reported, not removed: it may as well be another program's, on its way between two processes.

        Args:
            died_at: when another program killed its main process, in seconds since the epoch; None: none did.
        """
        if died_at is None:
            return []
        new = {
            name: each
            for name, each in proc.segments().items()
            if each not in self._older and each not in self._noted and _made_just_before(died_at, name)
        }
        return sorted(self._unheld(new))

    def _unheld(self, left: dict[str, Segment]) -> set[str]:
        """Those that no living process holds."""
        if left:
            held = {each for process in proc.processes() for each in proc.held_segments(process.pid)}
            return {name for name, each in left.items() if each not in held}
        return set()


def _unlink(name: str, segment: Segment) -> bool:
    path = os.path.join(proc.SHARED_MEMORY, name)
    with suppress(OSError):
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) == segment and status.st_uid == os.geteuid():
            os.unlink(path)
            return True
    return False


def _made_just_before(died_at: float, name: str) -> bool:
    try:
        status = os.lstat(os.path.join(proc.SHARED_MEMORY, name))
    except OSError:
        return False
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return ours and 0 <= died_at - status.st_ctime <= _LAST_SECONDS
