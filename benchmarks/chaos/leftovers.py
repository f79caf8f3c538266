"""What must not be there once the server has ended."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK_VARIABLE = "FAKE_ENGINE_MARK"
"""Everything that is started inherits it; the fake engine names its shared memory after it."""

_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = Path("/dev/shm")
_PAUSE_SECONDS = 0.1


def adopt_orphans() -> None:
    """Daemons that escape the server come to this process, and are seen."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)


def reap(known: set[int]) -> None:
    """Reaps the dead among this process's children that it did not start itself.

    Args:
        known: process ids of those it did.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


class Leftovers:
    """Looks for what a run left.

    Args:
        mark: in MARK_VARIABLE of everything that was started.
        temporary: the folder that was TMPDIR.
        unmarked: shared memory without the mark counts, too: real engines have names of their own. So does
            everybody else on the machine, therefore only what nobody has mapped.
    """

    def __init__(self, mark: str, temporary: Path, *, unmarked: bool) -> None:
        self._mark = mark
        self._unmarked = unmarked
        self._temporary = temporary
        self._segments_before = set(_SHARED_MEMORY.iterdir())

    def find(self, port: int, patience_seconds: float) -> list[str]:
        """All of it, in words, a line each; waits a while for the last to go."""
        until = time.monotonic() + patience_seconds
        while found := [*self._processes(), *self._ports(port), *self._folders(), *self._segments()]:
            if time.monotonic() >= until:
                return found
            time.sleep(_PAUSE_SECONDS)
        return []

    def end(self) -> None:
        """Kills and removes what was found, so that it does not stay for ever."""
        for process in self._marked():
            with suppress(psutil.Error):
                process.kill()
        for segment in self._own_segments():
            segment.unlink(missing_ok=True)

    def _marked(self) -> Iterator[psutil.Process]:
        reap(set())
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marked = process.environ().get(MARK_VARIABLE) == self._mark
                if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def _processes(self) -> Iterator[str]:
        for process in self._marked():
            with suppress(psutil.Error):
                yield f"process {process.pid}: {' '.join(process.cmdline())[:160]}"

    def _ports(self, port: int) -> Iterator[str]:
        for process in self._marked():
            with suppress(psutil.Error):
                for each in process.net_connections("tcp"):
                    if each.status == psutil.CONN_LISTEN:
                        yield f"port {each.laddr.port} of process {process.pid}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                yield f"the server's port {port}"

    def _folders(self) -> Iterator[str]:
        for each in self._temporary.iterdir():
            yield f"temporary: {each}"

    def _segments(self) -> Iterator[str]:
        for each in self._own_segments():
            yield f"shared memory: {each}"

    def _own_segments(self) -> Iterator[Path]:
        new = set(_SHARED_MEMORY.iterdir()) - self._segments_before
        yield from sorted(each for each in new if self._mark in each.name)
        strange = sorted(each for each in new if "fake-engine-" not in each.name)
        if self._unmarked and strange:
            mapped = _mapped_names()
            yield from (each for each in strange if each.name not in mapped)


def _mapped_names() -> set[str]:
    names: set[str] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            names.update(
                Path(each.path).name for each in process.memory_maps() if each.path.startswith("/dev/shm/")
            )
    return names
