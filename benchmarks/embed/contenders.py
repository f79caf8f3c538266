"""Who takes part: sentence-transformers in this process, and servers on the loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil
import yaml

from benchmarks.embed.clients import Client, vectors
from local_llm.worker.launch import free_port

START_SECONDS = 180.0
END_SECONDS = 60.0

INFINITY = Path(".cache/bench/infinity/bin/infinity_emb")

# A server that has nothing to do takes less than this of a core.
_IDLE_PERCENT = 5.0
_IDLE_SECONDS = 120.0

Rows = npt.NDArray[np.float32]


class NotStarted(Exception):
    """A server does not come up; the message is the end of its log."""


class Contender(Protocol):
    """One who embeds.

    Attributes:
        name: in the table.
    """

    name: str

    async def vectors(self, texts: Sequence[str]) -> Rows:
        """The texts' vectors, one a row."""
        ...

    async def embed(self, texts: Sequence[str], times: int, *, in_step: bool) -> float:
        """Embeds all texts so many times, each from a client of its own; returns the seconds it took.

        Args:
            texts: one a client.
            times: each.
            in_step: nobody asks again before everybody has an answer.
        """
        ...

    def cpu_seconds(self) -> float:
        """Of the server's processes so far, the clients' not counted."""
        ...


class Encode:
    """`SentenceTransformer.encode` of all texts in one batch, in this process.

    Args:
        name: in the table.
        folder: of the model.
    """

    def __init__(self, name: str, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    async def vectors(self, texts: Sequence[str]) -> Rows:
        """See `Contender`."""
        return np.asarray(self._encode(texts), np.float32)

    async def embed(self, texts: Sequence[str], times: int, *, in_step: bool) -> float:  # noqa: ARG002
        """See `Contender`; one batch after another, so always in step."""
        began = time.perf_counter()
        for _ in range(times):
            self._encode(texts)
        return time.perf_counter() - began

    def cpu_seconds(self) -> float:
        """See `Contender`."""
        return time.process_time()

    def _encode(self, texts: Sequence[str]) -> Any:
        return self._model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)


class Server:
    """A server with OpenAI's `/embeddings`, and clients with a connection each.

    Args:
        name: in the table.
        process: the server's first.
        port: on the loopback.
        path: of its endpoint.
        model: what it calls the model.
    """

    def __init__(self, name: str, process: psutil.Process, port: int, path: str, model: str) -> None:
        self.name = name
        self._process = process
        self._port = port
        self._path = path
        self._model = model

    async def vectors(self, texts: Sequence[str]) -> Rows:
        """See `Contender`."""
        clients = await self._clients(texts)
        rows = vectors(await asyncio.gather(*(each.ask() for each in clients)))
        await _close(clients)
        return rows

    async def embed(self, texts: Sequence[str], times: int, *, in_step: bool) -> float:
        """See `Contender`. Connecting is not counted."""
        clients = await self._clients(texts)
        rounds, each_time = (times, 1) if in_step else (1, times)
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*(each.ask_times(each_time) for each in clients))
        seconds = time.perf_counter() - began
        await _close(clients)
        return seconds

    def cpu_seconds(self) -> float:
        """See `Contender`."""
        tree = [self._process, *self._process.children(recursive=True)]
        times = [each.cpu_times() for each in tree]
        return sum(each.user + each.system for each in times)

    def wait_until_idle(self) -> None:
        """Returns when the server has nothing to do: a warm template, say, has been made."""
        deadline = time.monotonic() + _IDLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(1)
            if self.cpu_seconds() - before < _IDLE_PERCENT / 100:
                return

    async def _clients(self, texts: Sequence[str]) -> list[Client]:
        asked = (Client.connect(self._port, self._path, self._model, each) for each in texts)
        return list(await asyncio.gather(*asked))


async def _close(clients: Sequence[Client]) -> None:
    for each in clients:
        await each.close()


@contextmanager
def local_llm(model: Path) -> Iterator[Server]:
    """`local-llm serve` as it comes, with this one model; it is loaded by the first request.

    Raises:
        NotStarted: it does not answer.
    """
    port = free_port()
    with TemporaryDirectory() as name:
        models = Path(name, "models")
        models.mkdir()
        (models / model.name).symlink_to(model.absolute())
        config = Path(name, "local-llm.yaml")
        config.write_text(yaml.safe_dump({"state_dir": str(Path(name, "state"))}))
        command = [sys.executable, "-m", "local_llm", "serve", "--config", str(config)]
        command += ["--models", str(models), "--port", str(port)]
        with _running(command, port) as process:
            yield Server("local-llm", process, port, "/v1/embeddings", model.name)


@contextmanager
def infinity(model: Path, *options: str) -> Iterator[Server]:
    """Infinity, from its own environment.

    Args:
        model: its folder.
        options: for the command line.

    Raises:
        NotStarted: it does not answer.
    """
    port = free_port()
    command = [str(INFINITY), "v2", "--model-id", str(model.absolute()), "--served-model-name", model.name]
    command += ["--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    command += ["--no-model-warmup", *options]
    with _running(command, port, {"DO_NOT_TRACK": "1"}) as process:
        yield Server("Infinity", process, port, "/embeddings", model.name)


@contextmanager
def _running(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    with TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, **(environment or {})}
            )
        try:
            _wait_for_health(process, f"http://127.0.0.1:{port}/health", log)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStarted(log.read_text(errors="replace")[-3000:])
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False
