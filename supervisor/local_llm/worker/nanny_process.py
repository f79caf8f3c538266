"""A nanny's process, however it came to be: the supervisor is its parent and reaps it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from typing import Protocol

import anyio

from local_llm.worker.strays import Strays


class NannyProcess(Protocol):
    """What the link to a nanny needs of its process."""

    @property
    def pid(self) -> int: ...
    @property
    def ended(self) -> bool: ...

    async def wait(self) -> None:
        """Until it has ended and is reaped."""

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""


class ColdNanny:
    """Started with the supervisor's own Python.

    Args:
        process: from asyncio.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, control_fd: int, log_fd: int, strays: Strays) -> ColdNanny:
        """Starts one.

        Args:
            control_fd: a Unix stream socket to it.
            log_fd: becomes its and the worker's stdout and stderr.
            strays: is told of it, which it must not take for one.

        Raises:
            OSError: no process could be made.
        """
        argv = ["-m", "local_llm_worker.nanny", "--control-fd", str(control_fd), "--log-fd", str(log_fd)]
        async with strays.expecting_child() as expect:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *argv,
                pass_fds=(control_fd, log_fd),
                stdin=DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's alone
                env={**os.environ, "PYTHONSAFEPATH": "1"},
            )
            expect(process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended and is reaped."""
        return self._process.returncode is not None

    async def wait(self) -> None:
        """Until it has ended and is reaped."""
        await self._process.wait()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.kill()


class ForkedNanny:
    """Forked by a warm template, and then left to this process, which is a subreaper.

    To be made before anything can reap it.

    Args:
        pid: its process id.

    Raises:
        OSError: it cannot be watched.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = anyio.Event()
        self._pidfd = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def ended(self) -> bool:
        """Whether it has ended and is reaped."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Until it has ended and is reaped."""
        await self._ended.wait()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if not self.ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self) -> None:
        # Whoever was quicker (init's way of reaping everything), it has ended.
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set()
