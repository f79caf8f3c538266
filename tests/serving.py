"""Starts the whole server as its users do, as a program, and ends it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

START_SECONDS = 60.0
END_SECONDS = 60.0


@dataclass
class Served:
    """A running server.

    Attributes:
        url: without a path.
        process: the supervisor.
        log: its log lines, parsed, as they come.
    """

    url: str
    process: subprocess.Popen[str]
    log: list[dict[str, Any]] = field(default_factory=list)
    _news: queue.Queue[None] = field(default_factory=queue.Queue)

    def client(self, **options: Any) -> httpx.Client:
        """A plain client of this server."""
        options.setdefault("timeout", 300)
        return httpx.Client(base_url=self.url, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        """The same, asynchronous."""
        options.setdefault("timeout", 300)
        return httpx.AsyncClient(base_url=self.url, **options)

    def descendants(self) -> list[psutil.Process]:
        """All processes below the supervisor."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait_for_log(
        self, message: str, seconds: float = 60.0, *, after: int = 0, **fields: Any
    ) -> dict[str, Any]:
        """The first log line that begins with `message` and has `fields`; waits for it.

        Args:
            message: its beginning.
            seconds: without any news, after which the test fails.
            after: lines to pass over: `len(served.log)` of an earlier moment.
            fields: what it must have.
        """
        seen = after
        while True:
            for entry in self.log[seen:]:
                if entry["message"].startswith(message) and fields.items() <= entry.items():
                    return entry
            seen = len(self.log)
            try:
                self._news.get(timeout=seconds)
            except queue.Empty:
                raise AssertionError(f"no log line {message!r} {fields} among {self.log[-20:]}") from None

    def end(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Signals the supervisor and waits for its end; returns the exit code."""
        self.process.send_signal(sent)
        return self.process.wait(END_SECONDS)


@contextmanager
def serving(
    models_dir: Path,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Runs `local-llm serve` on a free port.

    Args:
        models_dir: the models.
        folder: for the settings file.
        settings: what the settings file says.
        environment: added to the process's environment.

    Ends it by SIGTERM if the test has not, and asserts that nothing is left behind.
    """
    config = folder / "local-llm.yaml"
    config.write_text(yaml.safe_dump({"port": 0, "state_dir": str(folder / "state"), **(settings or {})}))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "local_llm", "serve", "--models", str(models_dir)),
            *("--config", str(config), "--log-format", "json", "--log-level", "debug"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    served = Served("", process)
    reader = threading.Thread(target=_read_log, args=(served,))
    reader.start()
    try:
        started = served.wait_for_log("serving", START_SECONDS)
        served.url = f"http://{started['host']}:{started['port']}"
        below: list[psutil.Process] = []
        yield served
        below = served.descendants()
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            reader.join(END_SECONDS)
            assert process.stderr is not None
            process.stderr.close()
    _, left = psutil.wait_procs(below, timeout=20)
    assert not left, f"left behind: {left}"


def _read_log(served: Served) -> None:
    assert served.process.stderr is not None
    for line in served.process.stderr:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"message": line.rstrip(), "level": "unparsed"}
        served.log.append(entry)
        served._news.put(None)
