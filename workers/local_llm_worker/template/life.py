"""The template's life: import, then fork on request."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from local_llm_worker.nanny import life as nanny
from local_llm_worker.nanny.shared_memory import SharedMemory
from local_llm_worker.template.child import Program, rename
from local_llm_worker.template.control import Control
from local_llm_worker.template.engines import Engine
from local_llm_worker.template.errors import Unfit
from local_llm_worker.template.evidence import Installation, check_untouched, proportional_bytes, thread_count
from local_llm_worker.template.hunger import be_as_before, die_before_all_others

# Beside a busy process it still gets a quarter of a core. A start that waits for it must not wait longer than
# a cold one would take, which imports three times as much, and whose priority may not be raised later.
_LOW_PRIORITY = 5


def run(connection: socket.socket, engine: Engine) -> NoReturn:
    """Stays until the supervisor hangs up; then ends the process, without the libraries' own farewells.

    Args:
        connection: the control socket.
        engine: what is imported.
    """
    # From the terminal, or from a `kill` of everything: the supervisor decides.
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    # joblib, which vLLM imports, makes a semaphore and leaves it behind if it is not asked to go.
    shared_memory = SharedMemory(tempfile.gettempdir())
    try:
        with suppress(SupervisorLeft):
            _live(Control(connection), engine, shared_memory)
    except BaseException:  # noqa: BLE001 - told, as the interpreter does
        traceback.print_exc()
    finally:
        shared_memory.note([os.getpid()])
        shared_memory.unlink_leftovers()
        os._exit(0)


def _live(control: Control, engine: Engine, shared_memory: SharedMemory) -> None:
    began = time.monotonic()
    gc.disable()
    preload = Preload(engine)
    preload.wait(control)
    if preload.unfit is not None:
        control.send("unfit", message=preload.unfit)
        return
    shared_memory.note([os.getpid()])
    installation = Installation()
    gc.collect()
    gc.freeze()
    control.send(
        "ready",
        seconds=round(time.monotonic() - began, 2),
        pss_bytes=proportional_bytes(),
        threads=thread_count(),
        skipped=preload.skipped,
    )
    program = Program(engine.set_right)
    hunger = die_before_all_others()
    for descriptors in control.requests():
        change = installation.change()
        if change is not None:
            control.send("refused", message=change)
        else:
            _answer(control, partial(_be_nanny, control, descriptors, program, hunger))
        for descriptor in descriptors:
            os.close(descriptor)


class SupervisorLeft(Exception):
    """In the middle of the import, whose thread cannot be joined."""


class Preload:
    """The import, in a thread of low priority: priorities are a thread's own in Linux.

    The process' own stays as it is, for its children: who is not root cannot raise it again.

    Attributes:
        skipped: modules that were not there.
        unfit: why there is no template; None if there is.
    """

    def __init__(self, engine: Engine) -> None:
        self.skipped: list[str] = []
        self.unfit: str | None = None
        self._engine = engine
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._import, name="preload", daemon=True)

    def wait(self, control: Control) -> None:
        """Until everything is imported.

        Raises:
            SupervisorLeft: first.
        """
        self._thread.start()
        readable = select.select([self._reader, control.fileno()], [], [])[0]
        if control.fileno() in readable:  # nothing is asked before it is ready: this is the stream's end
            raise SupervisorLeft
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _import(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
        try:
            self.skipped = list(self._engine.preload())
            check_untouched()
        except Unfit as problem:
            self.unfit = str(problem)
        except BaseException as problem:  # noqa: BLE001 - whatever it is, a cold start shows it better
            self.unfit = repr(problem)
        finally:
            os.write(self._writer, b".")


def _answer(control: Control, live: Callable[[], None]) -> None:
    try:
        pid = _fork_orphan(live)
    except OSError as problem:
        control.send("refused", message=f"no process could be made: {problem}")
    else:
        control.send("forked", pid=pid)


def _fork_orphan(live: Callable[[], None]) -> int:
    """Forks a process that is not this one's child: the supervisor, a subreaper, becomes its parent.

    Returns:
        its process id.

    Raises:
        OSError: no process could be made.
    """
    reader, writer = os.pipe()
    between = os.fork()
    if between == 0:
        try:
            os.close(reader)
            child = os.fork()
            if child == 0:
                os.close(writer)
                _live_and_tell(live)
            else:
                os.write(writer, str(child).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
        told = pipe.read()
    os.waitpid(between, 0)
    if not told:
        raise OSError("the second fork failed")
    return int(told)


def _live_and_tell(live: Callable[[], None]) -> None:
    """In the new process: its mistakes go to the log, as those of a started one do."""
    try:
        live()
    except BaseException:  # noqa: BLE001 - it must not go on as a second template
        traceback.print_exc()


def _be_nanny(control: Control, descriptors: list[int], program: Program, hunger: int | None) -> None:
    control.close()
    be_as_before(hunger)
    connection_fd, log_fd = descriptors
    for each in (1, 2):
        os.dup2(log_fd, each)  # where a started nanny's traceback would go
    rename([sys.executable, "-m", "local_llm_worker.nanny", "--forked"])
    nanny.run(socket.socket(fileno=connection_fd), log_fd, start=program)
