"""The nanny's life: launch, watch, sweep, clean up, leave."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import time
from contextlib import suppress

from local_llm_worker.nanny.control import Control, Message
from local_llm_worker.nanny.ending import TreeEnd
from local_llm_worker.nanny.notes import ProcessNotes
from local_llm_worker.nanny.proc import descendants
from local_llm_worker.nanny.shared_memory import NewSegments, SharedMemory
from local_llm_worker.nanny.spawn import (
    Launch,
    NotStarted,
    Start,
    become_subreaper,
    exec_program,
    fork_worker,
)

# From the terminal (Ctrl-C, Ctrl-\\, its end) or from a `kill` of everything: the supervisor decides.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# Looks for shared memory come every tenth of the worker's age, between these bounds.
_LOOK_AT_LEAST_SECONDS = 0.25
_LOOK_AT_MOST_SECONDS = 10.0

_SWEEP_PAUSE_SECONDS = (0.01, 0.25)
_STUCK_AFTER_SECONDS = 5.0


def run(connection: socket.socket, log_fd: int, start: Start = exec_program) -> None:
    """A whole life. Returns when nothing of the worker is left, or nothing was ever asked for.

    Args:
        connection: the control socket.
        log_fd: becomes the worker's stdout and stderr.
        start: becomes the worker's program in the new process; a warm template gives its own.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    for each in _IGNORED:
        signal.signal(each, signal.SIG_IGN)
    become_subreaper()
    control = Control(connection)
    message = control.wait_for_launch()
    if message is None:
        return
    # Until here a traceback is worth seeing in the worker's log. From here on a full log pipe must
    # not be able to block the nanny, which has the control socket to speak through.
    try:
        launch = Launch.from_message(message)
    except NotStarted as problem:
        control.send("not_started", message=str(problem))
        control.send("gone", swept=[], shm_unlinked=[], shm_unclaimed=[])
        return
    Nanny(control, launch).live(log_fd, start)


class Nanny:
    """One worker's nanny.

    Args:
        control: the supervisor.
        launch: the worker.
    """

    def __init__(self, control: Control, launch: Launch) -> None:
        self._control = control
        self._launch = launch
        self._new_segments = NewSegments()
        self._shared_memory = SharedMemory(launch.temporary)
        self._children = ChildSignals()
        self._worker: int | None = None  # its main process, while that lives
        self._notes = ProcessNotes(launch.temporary)
        self._killed_at: float | None = None  # by somebody else: in seconds since the epoch
        self._asked = False
        self._kill_at: float | None = None
        self._end = TreeEnd(self._shared_memory.note)

    def live(self, log_fd: int, start: Start) -> None:
        """From the fork to the end. Whatever goes wrong in between, the sweep comes."""
        try:
            self._worker = fork_worker(self._launch, log_fd, start)
            _let_go_of_log(log_fd)
            self._control.send("started", pid=self._worker)
            self._watch()
        except NotStarted as problem:
            self._control.send("not_started", message=str(problem))
        except Exception as problem:  # noqa: BLE001 - a nanny with a bug still takes its worker along
            self._control.send("trouble", message=repr(problem))
        worker = self._worker
        self._sweep()
        unlinked = self._shared_memory.unlink_leftovers()
        unclaimed = self._shared_memory.unclaimed(self._killed_at)
        shutil.rmtree(self._launch.temporary, ignore_errors=True)
        swept = [{"pid": pid, "name": name} for pid, name in self._end.killed.items() if pid != worker]
        self._control.send("gone", swept=swept, shm_unlinked=unlinked, shm_unclaimed=unclaimed)

    def _watch(self) -> None:
        """Until the main process has ended, its grace is over, or the supervisor is gone."""
        born = time.monotonic()
        look_at = born
        for message in self._control.receive():
            self._obey(message)
        while self._worker is not None and not self._control.closed:
            now = time.monotonic()
            if self._kill_at is not None and now >= self._kill_at:
                return
            if now >= look_at:
                self._look()
                pause = min(max((now - born) / 10, _LOOK_AT_LEAST_SECONDS), _LOOK_AT_MOST_SECONDS)
                look_at = now + pause
            until = look_at if self._kill_at is None else min(look_at, self._kill_at)
            told = self._new_segments.sources
            sources: list[Control | ChildSignals | int] = [self._control, self._children, *told]
            readable = select.select(sources, [], [], max(0.0, until - now))[0]
            if told and told[0] in readable:
                self._new_segments.forget()
                look_at = 0.0
            if self._control in readable:
                for message in self._control.receive():
                    self._obey(message)
            self._reap()

    def _look(self) -> None:
        below = descendants(os.getpid())
        self._notes.note(below)
        if self._shared_memory.unknown():
            self._shared_memory.note(each.pid for each in below)

    def _obey(self, message: Message) -> None:
        grace_seconds = message.get("grace_seconds")
        if message.get("op") != "stop" or not isinstance(grace_seconds, int | float):
            self._control.send("trouble", message="unknown message")
            return
        kill_at = time.monotonic() + max(0.0, grace_seconds)
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)
        self._asked = True
        self._look()
        # To the main process alone: vLLM's API server stops its engine processes itself, in order. A
        # signal to the whole group would let it find a dead engine and complain of a crash.
        if self._worker is not None:
            os.kill(self._worker, self._launch.stop_signal)

    def _reap(self) -> None:
        for pid, code in self._children.reap():
            if pid == self._worker:
                self._worker = None
                if code == -signal.SIGKILL and pid not in self._end.killed and not self._asked:
                    self._killed_at = time.time()
                self._control.send(
                    "exited", code=code if code >= 0 else None, signal=-code if code < 0 else None
                )

    def _sweep(self) -> None:
        """Ends descendants until there are none: what forks meanwhile is found by the next look."""
        pause, longest_pause = _SWEEP_PAUSE_SECONDS
        stuck_at = time.monotonic() + _STUCK_AFTER_SECONDS
        while True:
            self._reap()
            alive = self._end.step()
            if self._end.done:
                break
            if time.monotonic() >= stuck_at:
                self._control.send("stuck", pids=[each.pid for each in alive])
                stuck_at += 6 * _STUCK_AFTER_SECONDS
            select.select([self._children], [], [], pause)
            pause = min(pause * 2, longest_pause)
        self._reap()


class ChildSignals:
    """Wakes a `select` when a child ends, and reaps. Every child here is the nanny's own to reap."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)

    def fileno(self) -> int:
        """For `select`."""
        return self._reader

    def reap(self) -> list[tuple[int, int]]:
        """Process id and exit code (negative: the signal) of every child that has ended."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 512):
                pass
        ended = []
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended.append((found[0], os.waitstatus_to_exitcode(found[1])))
        return ended


def _wake(_signal_number: int, _frame: object) -> None:
    """The wakeup descriptor has done the work; without a handler Python would not write to it."""


def _let_go_of_log(log_fd: int) -> None:
    """So that the log ends with the worker, and cannot block the nanny."""
    null = os.open(os.devnull, os.O_RDWR)
    for each in (0, 1, 2):
        os.dup2(null, each)
    os.close(null)
    os.close(log_fd)
