"""Processes of a worker end with the one that started them, even where nobody is left to end them.

The nanny ends a worker's tree. If it and the supervisor are killed in the same moment, only the kernel is
left: it kills the worker's main process with the nanny (PDEATHSIG), and, by what is here, each process below
with the one above. Without it an engine and a worker of vLLM, 2.2 GB, lived on for ever. Python's resource
trackers are started without this: they end by themselves, once they have unlinked what the others left.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Forking(threading.local):
    """What the forking thread knew before the fork: of the child's threads it is the one that remains.

    Attributes:
        parent: process id.
        by_main_thread: the signal comes when the *thread* that forked ends, and only this one surely lives as
            long as its process.
    """

    parent = 0
    by_main_thread = False


_forking = _Forking()


def install() -> None:
    """From now on each process that this one forks, and each that those fork, dies with its parent."""
    os.register_at_fork(before=_note_parent, after_in_child=_die_with_noted_parent)


def die_with_spawner() -> None:
    """Does for a process that multiprocessing has spawned, and that calls it, what a fork would have done."""
    # multiprocessing does not know its parent yet when it imports the main module. Should that be dead
    # already, this follows the nanny, which has it to end.
    _die_with(os.getppid())
    install()


def _note_parent() -> None:
    _forking.parent = os.getpid()
    _forking.by_main_thread = threading.current_thread() is threading.main_thread()


def _die_with_noted_parent() -> None:
    if _forking.by_main_thread:
        _die_with(_forking.parent)


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it was killed before this took effect
        os._exit(1)
