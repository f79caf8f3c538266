"""The worker's program in a forked process, so that it cannot tell the fork from a start."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from local_llm_worker.nanny.spawn import Launch


class Program:
    """Becomes `python -m MODULE ARGUMENTS` without starting Python; given to the nanny as its `Start`.

    Args:
        set_right: what the engine needs after a fork.
    """

    def __init__(self, set_right: Callable[[], None]) -> None:
        self._set_right = set_right

    def __call__(self, launch: Launch) -> NoReturn:
        """Runs the program and ends the process with its exit code."""
        code = 1
        try:
            module = _module_of(launch.argv)
            _become(launch)
            code = _exit_code(lambda: self._run(module, launch))
        except BaseException:  # noqa: BLE001 - as the interpreter does
            traceback.print_exc()
        finally:
            _leave(code)

    def _run(self, module: str, launch: Launch) -> None:
        self._set_right()
        run_module(module, launch)


def run_module(module: str, launch: Launch) -> None:  # noqa: ARG001 - a test's engine wants the launch
    """As `python -m` runs it."""
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _module_of(argv: list[str]) -> str:
    if argv[1:2] != ["-m"] or len(argv) < 3:
        raise ValueError(f"a template runs `python -m MODULE`, not {argv}")
    return argv[2]


def _become(launch: Launch) -> None:
    """Takes over what a started program would have been given or would have made itself."""
    os.environ.clear()
    os.environ.update(launch.env)
    sys.argv = launch.argv[2:]
    sys.orig_argv = list(launch.argv)
    tempfile.tempdir = None  # TMPDIR is another one
    multiprocessing.current_process().authkey = os.urandom(32)
    _signals_of_python()
    _renew_random()
    rename(launch.argv)
    gc.enable()


def _signals_of_python() -> None:
    """What the interpreter sets when it starts; else a client that leaves would kill the worker (SIGPIPE)."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _renew_random() -> None:
    """`random` does it itself after a fork; NumPy and torch, which draw a seed at their import, do not."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed()
    if torch is not None:
        torch.default_generator.seed()


def rename(argv: Sequence[str]) -> None:
    """What `ps` shows of this process. Without setproctitle, which vLLM brings along, the template's line."""
    with suppress(ImportError):
        import setproctitle

        setproctitle.setproctitle(" ".join(argv))
        setproctitle.setthreadtitle(os.path.basename(argv[0]))  # noqa: PTH119 - a name; `top` shows it


def _exit_code(run: Callable[[], None]) -> int:
    """What the interpreter would end with."""
    try:
        run()
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        sys.stderr.write(f"{ending.code}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _leave(code: int) -> NoReturn:
    """Ends as the interpreter ends: threads, exit functions, buffers."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - so does multiprocessing
        atexit._run_exitfuncs()  # noqa: SLF001 - so does multiprocessing
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)
