"""From the nanny to the worker: the fork, and what the new process must be before its program starts."""

# ruff: noqa: PTH123
# The nanny's start counts: it does without pathlib.

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

# Half of all memory on top of its own use, in the eyes of the kernel's OOM killer: a worker can be started
# again, and dies before the supervisor, its nanny, and most of what else runs on the machine.
_OOM_SCORE_ADJUSTMENT = 500

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class Launch(NamedTuple):
    """What to run.

    Attributes:
        argv: program and arguments; the program is looked up on the PATH of `env`.
        env: the whole environment.
        cwd: working directory.
        temporary: the worker's own folder, removed at the end with all that is in it.
        stop_signal: asks the worker's main process to end.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    temporary: str
    stop_signal: int = signal.SIGTERM

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Launch:
        """Checks what came over the control socket.

        Raises:
            NotStarted: something is missing or of another type.
        """
        try:
            launch = cls(
                [str(each) for each in message["argv"]],
                {str(name): str(value) for name, value in message["env"].items()},
                str(message["cwd"]),
                str(message["temporary"]),
                signal.Signals(message.get("stop_signal", signal.SIGTERM)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise NotStarted(f"the launch message is incomplete: {problem!r}") from problem
        if not launch.argv:
            raise NotStarted("the launch message names no program")
        return launch


Start = Callable[[Launch], NoReturn]
"""Becomes the worker's program, in the new process. Signals are at their defaults (SIGPIPE too)."""


class NotStarted(Exception):
    """The worker's program does not run; the message says why."""


def exec_program(launch: Launch) -> NoReturn:
    """The cold start."""
    try:
        os.execvpe(launch.argv[0], launch.argv, launch.env)  # noqa: S606 - no shell is the point
    except OSError as problem:
        # Not the last of the places on PATH where it was looked for.
        raise OSError(problem.errno, problem.strerror, launch.argv[0]) from problem


def become_subreaper() -> None:
    """Orphans among the descendants become children of this process instead of init's.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def fork_worker(launch: Launch, log_fd: int, start: Start) -> int:
    """Forks the worker and returns its process id once its program runs.

    Args:
        launch: what to run.
        log_fd: becomes its stdout and stderr.
        start: becomes the program.

    Raises:
        NotStarted: no process could be made, or it could not become the program.
    """
    # Closed by a successful exec (or before `start` takes over); else it carries the reason.
    reason_fd, status_fd = os.pipe()
    nanny = os.getpid()
    try:
        pid = os.fork()
    except OSError as problem:
        os.close(reason_fd)
        os.close(status_fd)
        raise NotStarted(f"no process could be made: {problem}") from problem
    if pid == 0:
        _become_worker(launch, nanny, log_fd, status_fd, start)
    os.close(status_fd)
    with open(reason_fd, "rb") as reason_pipe:
        reason = reason_pipe.read()
    if reason:
        os.waitpid(pid, 0)
        raise NotStarted(reason.decode(errors="replace"))
    return pid


def _become_worker(launch: Launch, nanny: int, log_fd: int, status_fd: int, start: Start) -> NoReturn:
    """In the new process. Never returns into the nanny's code, whatever happens."""
    try:
        # The worker's main process dies with the nanny; the rest of its tree is then the supervisor's
        # to sweep. The nanny may have been killed before this took effect.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != nanny:
            os._exit(0)
        os.setsid()
        _die_first_of_hunger()
        _default_signals()
        _standard_streams(log_fd)
        os.chdir(launch.cwd)
        os.closerange(3, status_fd)
        os.closerange(status_fd + 1, os.sysconf("SC_OPEN_MAX"))
        if start is not exec_program:
            os.close(status_fd)
        start(launch)
    except BaseException as problem:  # noqa: BLE001 - it must not go on as a second nanny
        with suppress(OSError):
            os.write(status_fd, _reason(problem).encode(errors="replace"))
    finally:
        os._exit(127)


def _reason(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return repr(problem)


def _default_signals() -> None:
    signal.set_wakeup_fd(-1)
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(each, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _die_first_of_hunger() -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:  # raising it needs no privilege
        if int(file.read()) < _OOM_SCORE_ADJUSTMENT:
            file.write(str(_OOM_SCORE_ADJUSTMENT))


def _standard_streams(log_fd: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
