"""The supervisor's side of a nanny: its process, the control socket, the log pipe."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from local_llm.worker.launch import Launch
from local_llm.worker.nanny_process import ColdNanny, NannyProcess
from local_llm.worker.strays import Strays
from local_llm.worker.templates import Templates

logger = logging.getLogger(__name__)

Event = dict[str, Any]

_MAX_EVENT_BYTES = 1 << 20


class NannyLink:
    """One nanny. The messages are described in `local_llm_worker.nanny`.

    Attributes:
        log_fd: the reading end of the worker's stdout and stderr; the caller takes it over.
        warm: it was forked from a template, and so will be its worker.
    """

    def __init__(
        self,
        process: NannyProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log_fd: int,
        strays: Strays,
        *,
        warm: bool,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._strays = strays
        self.log_fd = log_fd
        self.warm = warm

    @classmethod
    async def start(cls, launch: Launch, strays: Strays, templates: Templates) -> NannyLink:
        """Starts a nanny, from a warm template if there is one, and tells it what to launch.

        Args:
            launch: the worker.
            strays: is told of the nanny, which it must not take for one.
            templates: fork nannies.

        Raises:
            OSError: no process could be made.
        """
        link = await cls._connect(
            strays, lambda control, log: templates.fork(launch, control, log), warm=True
        )
        # With a socket of its own: a template may have died, or been given up, after it had forked a
        # nanny nobody knows of, which must not hear what this one is told. It finds its socket closed.
        link = link or await cls._connect(
            strays, lambda control, log: ColdNanny.start(control, log, strays), warm=False
        )
        if link is None:
            raise OSError("there is no nanny")
        link.launch(launch)
        return link

    @classmethod
    async def _connect(
        cls, strays: Strays, start: Callable[[int, int], Awaitable[NannyProcess | None]], *, warm: bool
    ) -> NannyLink | None:
        """A nanny with a control socket and a pipe for the log; None if there came none of it."""
        ours, theirs = socket.socketpair()
        log_reader, log_writer = os.pipe()
        process = None
        try:
            with theirs:
                process = await start(theirs.fileno(), log_writer)
        finally:
            os.close(log_writer)
            if process is None:
                ours.close()
                os.close(log_reader)
        if process is None:
            return None
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MAX_EVENT_BYTES)
        return cls(process, reader, writer, log_reader, strays, warm=warm)

    def launch(self, launch: Launch) -> None:
        """What to launch: the first message, once."""
        self._send(
            {
                "op": "launch",
                "argv": launch.argv,
                "env": dict(launch.env),
                "cwd": str(Path.cwd()),
                "temporary": str(launch.identity.temporary),
                "stop_signal": int(launch.stop_signal),
            }
        )

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
        """Asks for the stop signal now and SIGKILL after the grace; repeated, the earlier end counts."""
        self._send({"op": "stop", "grace_seconds": grace_seconds})

    def hang_up(self) -> None:
        """Closes the control socket: the nanny kills everything at once, and leaves."""
        self._writer.close()

    def kill(self) -> None:
        """Kills the nanny itself, and with it the worker's main process."""
        self._process.kill()

    async def wait(self, patience_seconds: float) -> None:
        """Until the nanny's process has ended and is reaped.

        Args:
            patience_seconds: after which it is killed, and after which again it is given up: one that is
                stopped does not hear that we hang up, and one that the kernel holds does not even die.
        """
        with anyio.move_on_after(patience_seconds):
            await self._process.wait()
        if not self._process.ended:
            self.kill()
            with anyio.move_on_after(patience_seconds):
                await self._process.wait()
        if self._process.ended:
            self._strays.forget(self._process.pid)
        self._writer.close()

    def _send(self, message: dict[str, object]) -> None:
        # A nanny that has gone meanwhile needs no message; `events` ends and says so.
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")
