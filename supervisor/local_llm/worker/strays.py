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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import psutil

logger = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_SECONDS = (0.005, 0.25)


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

    async def sweep(self, *, give_up_seconds: float) -> set[int]:
        """Kills and reaps strays until there are none; to be called after a nanny died unnaturally.

        Args:
            give_up_seconds: what the kernel does not let die until then (uninterruptible sleep) is
                reported and left; `reap_orphans` takes it when it is dead.

        Returns:
            their process ids.
        """
        pause, longest_pause = _PAUSE_SECONDS
        seen: set[int] = set()
        strays: list[psutil.Process] = []
        with anyio.move_on_after(give_up_seconds):
            while True:
                async with self._looking:
                    strays = self._find()
                    for stray in strays:
                        _end(stray)
                if new := {stray.pid for stray in strays} - seen:
                    logger.warning("killed what a killed nanny or template left: %s", sorted(new))
                    seen |= new
                if not strays:
                    return seen
                await anyio.sleep(pause)
                pause = min(pause * 2, longest_pause)
        logger.error("these survive SIGKILL and are given up: %s", [stray.pid for stray in strays])
        return seen

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


def _end(stray: psutil.Process) -> None:
    with suppress(psutil.Error):
        for below in stray.children(recursive=True):
            with suppress(psutil.Error):
                below.kill()
    with suppress(OSError):
        os.kill(stray.pid, signal.SIGKILL)
    _reap(stray.pid)


def _reap(pid: int) -> None:
    # Always by its id: waiting for any child would take those of asyncio away from it.
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
