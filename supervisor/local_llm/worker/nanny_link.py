"""The supervisor's side of a nanny: its process, the control socket, the log pipe."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from local_llm.worker.launch import Launch
from local_llm.worker.strays import Strays

logger = logging.getLogger(__name__)

Event = dict[str, Any]

_MAX_EVENT_BYTES = 1 << 20


class NannyLink:
    """One nanny. The messages are described in `local_llm_worker.nanny`.

    Attributes:
        log_fd: the reading end of the worker's stdout and stderr; the caller takes it over.
    """

    def __init__(
        self,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log_fd: int,
        strays: Strays,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._strays = strays
        self.log_fd = log_fd

    @classmethod
    async def start(cls, launch: Launch, strays: Strays) -> NannyLink:
        """Starts a nanny with the supervisor's own Python and tells it what to launch.

        Args:
            launch: the worker.
            strays: is told of the nanny, which it must not take for one.

        Raises:
            OSError: no process could be made.
        """
        ours, theirs = socket.socketpair()
        log_reader, log_writer = os.pipe()
        try:
            with theirs:
                process = await _start_process(theirs.fileno(), log_writer, strays)
        except BaseException:
            ours.close()
            os.close(log_reader)
            raise
        finally:
            os.close(log_writer)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MAX_EVENT_BYTES)
        link = cls(process, reader, writer, log_reader, strays)
        link._send(
            {
                "op": "launch",
                "argv": launch.argv,
                "env": dict(launch.env),
                "cwd": str(Path.cwd()),
                "temporary": str(launch.identity.temporary),
            }
        )
        return link

    @property
    def pid(self) -> int:
        """Of the nanny itself."""
        return self._process.pid

    async def events(self) -> AsyncIterator[Event]:
        """What the nanny says, until it has left or was killed."""
        while True:
            try:
                line = await self._reader.readline()
            except ConnectionError:
                return
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)

    def stop(self, grace_seconds: float) -> None:
        """Asks for SIGTERM now and SIGKILL after the grace; repeated, the earlier end counts."""
        self._send({"op": "stop", "grace_seconds": grace_seconds})

    def hang_up(self) -> None:
        """Closes the control socket: the nanny kills everything at once, and leaves."""
        self._writer.close()

    def kill(self) -> None:
        """Kills the nanny itself, and with it the worker's main process."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self, patience_seconds: float) -> None:
        """Until the nanny's process has ended and is reaped.

        Args:
            patience_seconds: after which it is killed, and after which again it is given up: one that is
                stopped does not hear that we hang up, and one that the kernel holds does not even die.
        """
        with anyio.move_on_after(patience_seconds):
            await self._process.wait()
        if self._process.returncode is None:
            self.kill()
            with anyio.move_on_after(patience_seconds):
                await self._process.wait()
        if self._process.returncode is not None:
            self._strays.forget(self._process.pid)
        self._writer.close()

    def _send(self, message: dict[str, object]) -> None:
        # A nanny that has gone meanwhile needs no message; `events` ends and says so.
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")


async def _start_process(control_fd: int, log_fd: int, strays: Strays) -> Process:
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
    return process
