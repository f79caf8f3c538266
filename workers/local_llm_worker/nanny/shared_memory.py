"""Which shared-memory segments the worker's processes made, so that those they leave can be unlinked.

The kernel does not say who made a segment. What a process has mapped it does say, but only while the
process lives; and a SIGKILLed tree is dead before anybody can look. So the nanny looks as soon as the
kernel tells that a segment was made, and now and then. (Each SIGKILL of a vLLM tree left two segments,
of 168 and 252 MB.)
"""

# ruff: noqa: PTH108, PTH116, PTH118, PTH123
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import ctypes
import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import suppress

from local_llm_worker.nanny import proc

# In the worker's temporary folder, one name a line: for the supervisor, should the nanny be killed.
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
    """Segments that appeared after this object was made and that the worker's processes had mapped.

    Args:
        temporary: the worker's temporary folder, where the names are noted as well.
    """

    def __init__(self, temporary: str) -> None:
        self._notes_file = os.path.join(temporary, NOTES_FILE)
        self._older = frozenset(proc.segments())
        self._noted: set[str] = set()
        self._pids: set[str] = set()
        self._named_after: dict[str, str] = {}

    def unknown(self) -> bool:
        """Whether there are segments of which it is not known that they are ours.

        One `listdir`; reading the maps of a vLLM tree costs some milliseconds, and once its segments
        are noted there is nothing more to find.
        """
        return bool(proc.segments().keys() - self._older - self._noted)

    def remember(self, pid: int) -> None:
        """One of the worker's processes; it may be dead."""
        self._pids.add(str(pid))

    def note(self, pids: Iterable[int]) -> None:
        """Notes what these processes hold now, and what bears the id of one of them in its name.

        joblib's `sem.loky-4711-9e94alje` may have been made after the last look at a process that is dead
        by now; its name tells. So ids are remembered.
        """
        held: set[int] = set()
        for each in pids:
            self.remember(each)
            held |= proc.held_segments(each)
        there = proc.segments()
        found = {name for name, inode in there.items() if inode in held}
        for name in there:
            for pid in self._pids.intersection(re.split(r"[^0-9A-Za-z]+", name)):
                self._named_after[name] = pid
                found.add(name)
        # A segment that was there before the worker is somebody else's, whoever maps it now.
        found -= self._older | self._noted
        if not found:
            return
        self._noted |= found
        # A full disk must not stop the nanny, which knows the names anyway.
        with suppress(OSError), open(self._notes_file, "a") as file:
            file.writelines(name + "\n" for name in sorted(found))

    def unlink_leftovers(self, died_at: float | None) -> list[str]:
        """Unlinks what is still there and belongs to no living process. Called when the worker's are dead.

        Args:
            died_at: when its main process ended, in seconds since the epoch; None: it was never seen to.
        """
        self.note(())
        unlinked = _unlink(self._unheld(self._noted))
        if last := self._unheld(self._last_made(died_at)):
            # Perhaps a stranger's, on the way from the process that made it to the one that will hold it.
            time.sleep(_LAST_SECONDS)
            unlinked += _unlink(self._unheld(last))
        return sorted(unlinked)

    def _unheld(self, names: Iterable[str]) -> set[str]:
        """Those that are still there and that no living process holds."""
        there = proc.segments()
        left = {name for name in names if name in there}
        if left:
            for process in proc.processes():
                held = proc.held_segments(process.pid)
                left = {name for name in left if there[name] not in held}
                # An id that was given away again: the name may be its new owner's.
                left = {name for name in left if self._named_after.get(name) != str(process.pid)}
        return left

    def _last_made(self, died_at: float | None) -> set[str]:
        """What was made so shortly before the worker's death that nobody could look any more.

        It must be this user's, have appeared in that second, and be held by nobody, neither now nor a second
        later. (Chaos left one such segment in a thousand switches.)
        """
        if died_at is None:
            return set()
        new = proc.segments().keys() - self._older - self._noted
        return {name for name in new if _made_just_before(died_at, name)}


def _unlink(names: Iterable[str]) -> list[str]:
    unlinked = []
    for name in names:
        with suppress(OSError):
            os.unlink(os.path.join(proc.SHARED_MEMORY, name))
            unlinked.append(name)
    return unlinked


def _made_just_before(died_at: float, name: str) -> bool:
    try:
        status = os.stat(os.path.join(proc.SHARED_MEMORY, name))
    except OSError:
        return False
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return ours and 0 <= died_at - status.st_ctime <= _LAST_SECONDS
