"""A real template of the fake engine: it imports nothing, and forks workers that run `server.py`.

Told by FAKE_TEMPLATE in its environment, it misbehaves:
    unfit, dies      while it imports
    slow, endless    half a second of import; an import that ends with the process
    helper           endless, with a child that outlives a killed template
    babbles          a megabyte of output without a line's end
    stammers         speaks no JSON
    other_version    speaks of other things
    refuses          every fork
    mute             never answers
    dies_forking     is killed when the nanny is born and the supervisor has not heard of it
    bad              its workers fail at once
"""

# ruff: noqa: T201
from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from local_llm_worker.nanny.spawn import Launch
from local_llm_worker.template import child, life
from local_llm_worker.template.__main__ import main
from local_llm_worker.template.control import Control
from local_llm_worker.template.engines import ENGINES
from local_llm_worker.template.errors import Unfit

MANNER = os.environ.get("FAKE_TEMPLATE", "")


class FakeEngine:
    """Imports nothing."""

    def __init__(self, architectures: Sequence[str]) -> None:
        print("architectures:", *architectures, flush=True)

    def library_environment(self) -> dict[str, str]:
        """Sets a variable, so that the template is executed anew."""
        return {"FAKE_LIBRARY": "1"}

    def preload(self) -> Iterator[str]:
        """As it is told."""
        match MANNER:
            case "unfit":
                raise Unfit("told to be")
            case "dies":
                print("dying as told", flush=True)
                os._exit(9)
            case "slow":
                time.sleep(0.5)
            case "babbles":
                print("x" * 1_000_000, flush=True)
            case "helper":
                subprocess.Popen(["sleep", "3600"])
                time.sleep(3600)
            case "endless":
                time.sleep(3600)
        yield from ()

    def set_right(self) -> None:
        """Tells the worker's log."""
        print("forked from a template", flush=True)
        if MANNER == "bad":
            sys.exit(7)


def run_fake(module: str, launch: Launch) -> None:
    """Instead of the module: the fake engine's program, which wants the whole command line."""
    sys.argv = list(launch.argv)
    runpy.run_path(str(Path(__file__).with_name("server.py")), run_name="__main__")


class _Control(Control):
    def requests(self) -> Iterator[list[int]]:
        for descriptors in super().requests():
            if MANNER == "mute":
                time.sleep(3600)
            if MANNER != "refuses":
                yield descriptors
                continue
            self.send("refused", message="told to")
            for each in descriptors:
                os.close(each)

    def send(self, event: str, **details: object) -> None:
        match MANNER, event:
            case "dies_forking", "forked":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stammers", "ready":
                self._connection.sendall(b"r-r-ready\n")
            case "other_version", "ready":
                super().send("ready", version=2)
            case _:
                super().send(event, **details)


if __name__ == "__main__":
    ENGINES.update(dict.fromkeys(ENGINES, FakeEngine))
    child.run_module = run_fake
    life.Control = _Control  # type: ignore[misc]
    main()
