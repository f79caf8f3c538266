"""The server under test: `local-llm serve`, through several lives on one port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import psutil
import yaml
from anyio.abc import TaskGroup

from benchmarks.chaos.judging import Outage
from local_llm.worker.launch import free_port

START_SECONDS = 30.0
END_SECONDS = 60.0
LONGEST_LINE_BYTES = 16 << 20


class Weight(NamedTuple):
    """What the supervisor holds at one moment."""

    at: float
    rss_bytes: int
    descriptors: int
    threads: int


class NotStarted(Exception):
    """The server does not start; the message is what it said."""


@dataclass(slots=True)
class Life:
    """One run of the supervisor.

    Attributes:
        process: its own.
        weights: over time.
        news: it listens, or has ended.
        serving: it listens.
    """

    process: Process
    weights: list[Weight] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)
    serving: bool = False


class Program:
    """Starts the supervisor and ends it, gently or not.

    Args:
        models_dir: the models.
        folder: for the settings file and the measured costs.
        settings: what the settings file says.
        environment: added to the supervisor's.
        tasks: where its log is read.

    Attributes:
        outages: from each end to the next start.
        loads: workers whose program was started.
        switches: workers that became ready, of another model than the one before.
        troubles: log lines that must not be.
    """

    def __init__(
        self,
        models_dir: Path,
        folder: Path,
        settings: Mapping[str, Any],
        environment: Mapping[str, str],
        tasks: TaskGroup,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.outages: list[Outage] = []
        self.loads = 0
        self.switches = 0
        self.troubles: list[str] = []
        self._models_dir = models_dir
        self._config = folder / "local-llm.yaml"
        self._settings = {**settings, "port": self.port, "state_dir": str(folder / "state")}
        self._environment = {**os.environ, **environment}
        self._tasks = tasks
        self._last_ready: str | None = None
        self._life: Life

    @property
    def pid(self) -> int:
        """Of the supervisor that lives now, or lived last."""
        return self._life.process.pid

    @property
    def weights(self) -> list[Weight]:
        """Of its present life."""
        return self._life.weights

    async def start(self) -> None:
        """Starts it, and returns when it listens.

        Raises:
            NotStarted: it does not.
        """
        self._config.write_text(yaml.safe_dump(self._settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local_llm", "serve", "--models", str(self._models_dir)),
            *("--config", str(self._config), "--log-format", "json", "--log-level", "info"),
            stderr=PIPE,
            env=self._environment,
            limit=LONGEST_LINE_BYTES,
        )
        self._life = Life(process)
        self._tasks.start_soon(self._read_log, self._life)
        with anyio.move_on_after(START_SECONDS):
            await self._life.news.wait()
        if not self._life.serving:
            raise NotStarted("\n".join(self.troubles) or f"it does not serve after {START_SECONDS:.0f} s")
        if self.outages:
            self.outages[-1].ended = time.monotonic()

    async def kill(self) -> None:
        """SIGKILL: no last words."""
        self.outages.append(Outage(time.monotonic(), killed=True))
        self._life.process.kill()
        await self._life.process.wait()

    async def terminate(self) -> None:
        """SIGTERM: it ends what it has, and itself."""
        self.outages.append(Outage(time.monotonic(), killed=False))
        self._life.process.send_signal(signal.SIGTERM)
        try:
            with anyio.fail_after(END_SECONDS):
                code = await self._life.process.wait()
        except TimeoutError:
            self.troubles.append(f"it did not end within {END_SECONDS:.0f} s of SIGTERM")
            self._life.process.kill()
            code = await self._life.process.wait()
        if code != 0:
            self.troubles.append(f"SIGTERM ended it with exit code {code}")

    def weigh(self) -> Weight | None:
        """Notes what it holds now; None if it is not there."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            with process.oneshot():
                weight = Weight(
                    time.monotonic(), process.memory_info().rss, process.num_fds(), process.num_threads()
                )
            self._life.weights.append(weight)
            return weight
        return None

    async def _read_log(self, life: Life) -> None:
        assert life.process.stderr is not None
        async for line in life.process.stderr:
            self._take(line.decode(errors="replace"), life)
        life.news.set()

    def _take(self, line: str, life: Life) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"message": line.rstrip(), "level": "not a log line"}
        match entry:
            case {"message": "serving"}:
                life.serving = True
                life.news.set()
            case {"from": "launching", "to": "loading"}:
                self.loads += 1
            case {"from": "loading", "to": "ready", "model": model}:
                self.switches += self._last_ready not in (None, model)
                self._last_ready = model
        if is_trouble(entry):
            self.troubles.append(line.rstrip()[:2000])


def is_trouble(entry: Mapping[str, Any]) -> bool:
    """Whether a log line tells of a mistake in the server: an error, a traceback, something unhandled."""
    return (
        entry["level"] not in ("debug", "info", "warning")
        or "exception" in entry
        or entry.get("logger") in ("asyncio", "py.warnings")
    )
