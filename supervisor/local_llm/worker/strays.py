"""Processes whose nanny was killed: their worker dies with it, the rest of its tree comes to the supervisor.

The supervisor is a child subreaper, so whatever a killed nanny leaves becomes its child. Children that
nobody here has started, in a session that is not ours, are such strays.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress

import anyio
import psutil

from local_llm.worker.shared_memory import Segment, held_by

logger = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_SECONDS = (0.005, 0.25)

# As the nanny does it, which says why (local_llm_worker.nanny.ending).
_STOP_SECONDS = 0.1
_TRACKER_SECONDS = 1.0
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant that loses its own.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Strays:
    """Knows the children that were started here, and ends the others.

    Those that exist when this object is made are known.
    """

    def __init__(self) -> None:
        self._known = {child.pid for child in psutil.Process().children()}
        self._looking = anyio.Lock()

    @asynccontextmanager
    async def expecting_child(self) -> AsyncIterator[Callable[[int], None]]:
        """While a child is started; yields what must be told its process id.

        No sweep looks meanwhile: it would find a child that nobody knows yet.
        """
        async with self._looking:
            yield self._known.add

    def forget(self, pid: int) -> None:
        """A known child has been reaped."""
        self._known.discard(pid)

    async def sweep(self, *, give_up_seconds: float) -> set[Segment]:
        """Kills and reaps strays until there are none; to be called after a nanny died unnaturally.

        Python's resource trackers among them are given a second to unlink what they know of.

        Args:
            give_up_seconds: what the kernel does not let die until then (uninterruptible sleep) is
                reported and left; `reap_orphans` takes it when it is dead.

        Returns:
            The shared memory that the strays held.
        """
        pause, longest_pause = _PAUSE_SECONDS
        seen: set[int] = set()
        held: set[Segment] = set()
        strays: list[psutil.Process] = []
        trackers_until = time.monotonic() + _TRACKER_SECONDS
        with anyio.move_on_after(give_up_seconds):
            while True:
                async with self._looking:
                    strays = self._find()
                    spare_trackers = time.monotonic() < trackers_until
                    held |= await anyio.to_thread.run_sync(_end, strays, spare_trackers)
                if new := {stray.pid for stray in strays} - seen:
                    logger.warning("killed what a killed nanny or template left: %s", sorted(new))
                    seen |= new
                if not strays:
                    return held
                await anyio.sleep(pause)
                pause = min(pause * 2, longest_pause)
        logger.error("these survive SIGKILL and are given up: %s", [stray.pid for stray in strays])
        return held

    async def reap_orphans(self) -> None:
        """Reaps the dead among the strays: as PID 1 of a container, nobody else would."""
        async with self._looking:
            for stray in self._find():
                _reap(stray.pid)

    def _find(self) -> list[psutil.Process]:
        """Unknown children in other sessions; those in ours belong to whoever uses this as a library.

        Init has no such others: whatever loses its parent in the container comes to it, from every session.
        """
        own_session = None if os.getpid() == 1 else os.getsid(0)
        return [
            child
            for child in psutil.Process().children()
            if child.pid not in self._known and (own_session is None or _session(child.pid) != own_session)
        ]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError as problem:
        # A zombie has none any more on some kernels; it is still a child to reap.
        if problem.errno not in (errno.ESRCH, errno.EPERM):
            raise
        return None


def _end(strays: Collection[psutil.Process], spare_trackers: bool) -> set[Segment]:
    """Stops the strays and all below them, looks at what they hold, kills and reaps them. In a thread."""
    if not strays:
        return set()
    trees = _stopped(strays)
    held = {segment for each in trees for segment in held_by(each.pid)}
    trackers = {each.pid for each in trees if spare_trackers and _is_resource_tracker(each)}
    for each in trees:
        _signal(each.pid, signal.SIGCONT if each.pid in trackers else signal.SIGKILL)
    for each in strays:
        _reap(each.pid)
    return held


def _stopped(strays: Collection[psutil.Process]) -> set[psutil.Process]:
    """All that is alive of the trees, stopped; what is forked meanwhile too."""
    until = time.monotonic() + _STOP_SECONDS
    asked: set[psutil.Process] = set()
    while True:
        alive = set(strays)
        for stray in strays:
            with suppress(psutil.Error):
                alive.update(stray.children(recursive=True))
        new = alive - asked
        for each in new:
            _signal(each.pid, signal.SIGSTOP)
        asked |= new
        if (not new and all(_is_stopped(each) for each in alive)) or time.monotonic() >= until:
            return alive
        time.sleep(0.001)


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in _STOPPED
    except psutil.Error:
        return True


def _is_resource_tracker(process: psutil.Process) -> bool:
    """Python's, or joblib's: ``python -c 'from ...resource_tracker import main; main(7)'``."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any(word.startswith("from ") and "resource_tracker import main" in word for word in words)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    # Always by its id: waiting for any child would take those of asyncio away from it.
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
