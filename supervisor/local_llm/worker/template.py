"""One warm template: its process, and the socket over which it is asked to fork."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio

from local_llm.catalog.card import Engine
from local_llm.worker.nanny_process import ForkedNanny
from local_llm.worker.shared_memory import clean_after
from local_llm.worker.strays import Strays

logger = logging.getLogger(__name__)

# It forks in 0.06 s; one that is swapped out or stopped is not waited for.
FORK_SECONDS = 10.0
_END_SECONDS = 5.0
_LAST_LINES = 8
# What a helper of an import holds open when the template has ended is not waited for.
_LAST_LINES_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What a template is made of. A worker may be forked from it if it would be started with the same.

    Attributes:
        engine: what it imports.
        python: that has it installed.
        env: all that a worker of this engine inherits, less what is its own.
        architectures: model classes worth importing; of no matter for the comparison.
    """

    engine: Engine
    python: str
    env: Mapping[str, str]
    architectures: tuple[str, ...] = ()

    def suits(self, other: Plan) -> bool:
        """Whether workers of the other plan may be forked from a template of this one."""
        return (self.engine, self.python, self.env) == (other.engine, other.python, other.env)


@dataclass(frozen=True, slots=True)
class Making:
    """It imports."""

    since: float


@dataclass(frozen=True, slots=True)
class Ready:
    """It can be forked.

    Attributes:
        seconds: that its imports took.
        proportional_bytes: of memory that it holds: shared pages by their share.
        threads: that libraries have started in it.
    """

    seconds: float
    proportional_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Gone:
    """It is none any more, or never was one.

    Attributes:
        reason: why, for people.
        unfit: another one would do no better.
    """

    reason: str
    unfit: bool


State: TypeAlias = "Making | Ready | Gone"


class Template:
    """One template process. `live` owns it; everything else asks.

    Args:
        plan: what it is made of.
        folder: for its temporary files.
        strays: is told of the processes.

    Attributes:
        state: for showing, and to decide whether to ask it.
        made: set when it is no longer in the making.
        last_lines: of its output.
    """

    def __init__(self, plan: Plan, folder: Path, strays: Strays) -> None:
        self.plan = plan
        self.state: State = Making(time.monotonic())
        self.made = anyio.Event()
        self._folder = folder
        self._strays = strays
        self._asking = anyio.Lock()
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)

    async def live(self) -> None:
        """From its start to its end, which comes when it leaves, or when this is cancelled."""
        try:
            with tempfile.TemporaryDirectory(prefix="t", dir=self._folder, ignore_cleanup_errors=True) as own:
                process = await self._start(own)
                try:
                    async with anyio.create_task_group() as tasks:
                        if process.stdout is not None:
                            tasks.start_soon(self._read_log, process.stdout)
                        await self._listen()
                        self._become(Gone("its process ended", unfit=isinstance(self.state, Making)))
                        await self._end(process)
                        tasks.cancel_scope.deadline = anyio.current_time() + _LAST_LINES_SECONDS
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._end(process)
                        # A helper of an import, or a nanny of which it could not tell any more.
                        held = await self._strays.sweep(give_up_seconds=_END_SECONDS)
                        await anyio.to_thread.run_sync(clean_after, Path(own), held)
        except OSError as problem:
            self._become(Gone(f"it could not be started: {problem}", unfit=True))
        except Exception as problem:
            # It is a cache: not even a mistake in here may end the server.
            logger.exception("a mistake in the supervisor")
            self._become(Gone(f"a mistake in the supervisor: {problem!r}", unfit=True))
        finally:
            self._become(Gone("it is not needed", unfit=False))
            self._theirs.close()
            self._socket.close()

    def retire(self) -> None:
        """Ends it: workers that were forked from it live on."""
        self._become(Gone("its settings have changed", unfit=False))

    async def fork(self, control_fd: int, log_fd: int) -> ForkedNanny | None:
        """A nanny with these two descriptors; None if the template cannot, which is logged."""
        async with self._asking, self._strays.expecting_child() as expect:
            if not isinstance(self.state, Ready):
                return None
            try:
                socket.send_fds(self._socket, [b'{"op": "fork"}\n'], [control_fd, log_fd])
                with anyio.fail_after(FORK_SECONDS):
                    answer = await self._answers.get()
                match answer:
                    case {"event": "forked", "pid": int(pid)}:
                        nanny = ForkedNanny(pid)
                        expect(pid)
                        return nanny
                    case {"event": "refused", "message": str(message)}:
                        self._become(Gone(message, unfit=False))
            except (OSError, TimeoutError) as problem:
                self._become(Gone(str(problem) or "did not answer", unfit=False))
        return None

    async def _start(self, own_folder: str) -> asyncio.subprocess.Process:
        argv = ["-m", "local_llm_worker.template", "--engine", self.plan.engine.value]
        argv += ["--control-fd", str(self._theirs.fileno()), "--architectures", *self.plan.architectures]
        async with self._strays.expecting_child() as expect:
            process = await asyncio.create_subprocess_exec(
                self.plan.python,
                *argv,
                pass_fds=(self._theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**self.plan.env, "TMPDIR": own_folder},
            )
            expect(process.pid)
        self._theirs.close()
        return process

    async def _listen(self) -> None:
        """Takes its events until it has left, or is of no more use."""
        reader, writer = await asyncio.open_connection(sock=self._socket.dup())
        try:
            await self._take_events(reader)
        except ConnectionError:
            pass  # It was killed before it had read a request.
        except (ValueError, KeyError) as problem:
            self._become(Gone(f"it is of another version: {problem!r}", unfit=True))
        finally:
            writer.close()
            self._answers.put_nowait(None)

    async def _take_events(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            match event := json.loads(line):
                case {"event": "ready"}:
                    self._become(Ready(event["seconds"], event["pss_bytes"], event["threads"]))
                case {"event": "unfit", "message": str(message)}:
                    self._become(Gone(message, unfit=True))
                case _:
                    self._answers.put_nowait(event)
            if isinstance(self.state, Gone):
                break

    async def _read_log(self, output: asyncio.StreamReader) -> None:
        while not output.at_eof():
            # A line beyond asyncio's limit is dropped.
            with suppress(ValueError):
                if line := await output.readline():
                    self.last_lines.append(line.decode(errors="replace").rstrip())

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._become(Gone("it is not needed", unfit=False))
        with anyio.move_on_after(_END_SECONDS):
            await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            # For asyncio it has not ended while a helper of an import holds its output open.
            with anyio.move_on_after(_END_SECONDS):
                await process.wait()
        if process.returncode is not None:
            self._strays.forget(process.pid)

    def _become(self, state: State) -> None:
        if isinstance(self.state, Gone):
            return
        self.state = state
        self.made.set()
        if isinstance(state, Gone):
            # Both ends read the end of the stream: `_listen` here, and the process, which leaves.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
