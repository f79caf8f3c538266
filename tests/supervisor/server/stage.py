"""What the tests of the whole server share: a server over fake engines, and looks at its processes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import httpx
import psutil

from tests.fake_engine import fake_python
from tests.serving import Served, serving

POLL_SECONDS = 0.02
DEADLINE_SECONDS = 30.0
CHAT = "/v1/chat/completions"


@contextmanager
def running(
    folder: Path, environment: Mapping[str, str] | None = None, *, warm: str = "off", **settings: Any
) -> Iterator[Served]:
    """Serves `folder`/models with fake engines.

    Args:
        folder: of the test; it also gets the settings file.
        environment: added to the server's.
        warm: whether workers are forked from templates.
        settings: what the settings file says beyond the engines' Python.
    """
    models_dir = folder / "models"
    models_dir.mkdir(exist_ok=True)
    python = str(fake_python(folder))
    engines = {name: {"python": python, "warm": warm} for name in ("vllm", "transformers")}
    with serving(models_dir, folder, {"engines": engines, **settings}, environment) as served:
        yield served


def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Waits for what can only be looked at: another process, an endpoint's answer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(POLL_SECONDS)


def asking(model: Any, **more: Any) -> dict[str, Any]:
    """A chat request's body."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}


def health(served: Served) -> dict[str, Any]:
    """What GET /health says."""
    with served.client() as client:
        answer: dict[str, Any] = client.get("/health").json()
    return answer


@dataclass(frozen=True, slots=True)
class SeenEngine:
    """A worker's program, as somebody on the host would find it.

    Attributes:
        process: its main process.
        url: where it listens.
        key: what it wants to see, from its environment.
    """

    process: psutil.Process
    url: str
    key: str

    def get(self, path: str, *, key: str | None = None) -> httpx.Response:
        """Asks it directly, past the supervisor."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.get(self.url + path, headers=headers, timeout=10)

    def metric(self, name: str) -> float:
        """One of its metrics."""
        for line in self.get("/metrics", key=self.key).text.splitlines():
            found, _, value = line.partition(" ")
            if found == f"vllm:{name}":
                return float(value)
        raise AssertionError(f"no metric {name}")


def engine_processes(served: Served) -> list[psutil.Process]:
    """The programs of workers that are alive now."""
    found = []
    for process in served.descendants():
        try:
            if any(part.endswith("fake_engine/server.py") for part in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def the_engine(served: Served) -> SeenEngine:
    """The one worker that is ready."""
    found: list[SeenEngine] = []

    def seen() -> bool:
        found.clear()
        for process in engine_processes(served):
            ports = [each.laddr.port for each in process.net_connections("tcp") if each.status == "LISTEN"]
            key = process.environ().get("LOCAL_LLM_WORKER_KEY", "")
            found.extend(SeenEngine(process, f"http://127.0.0.1:{port}", key) for port in ports)
        return len(found) == 1

    until(seen)
    return found[0]


def connect(served: Served) -> socket.socket:
    """A raw connection to the server; the caller closes it."""
    address = urlsplit(served.url)
    assert address.hostname is not None
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=DEADLINE_SECONDS)


def request_bytes(path: str, body: bytes, *headers: bytes) -> bytes:
    """A POST as it goes over the wire; `headers` are whole lines without their end."""
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"Host: server", *headers]
    if not any(line.lower().startswith(b"transfer-encoding") for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer read from a raw connection."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_answer(connection: socket.socket) -> RawAnswer:
    """Reads one answer that has a Content-Length; interim (1xx) answers are passed over."""
    with connection.makefile("rb") as file:
        return next_answer(file)


def next_answer(file: BinaryIO) -> RawAnswer:
    """The same where more than one is to come."""
    while True:
        status = int(file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if status >= 200:
            return RawAnswer(status, headers, file.read(int(headers["content-length"])))


def leave_while_waiting(served: Served, path: str, body: Mapping[str, Any], *headers: bytes) -> socket.socket:
    """Sends a request and returns its connection; closing it is leaving."""
    connection = connect(served)
    connection.sendall(request_bytes(path, json.dumps(body).encode(), *headers))
    return connection


def loads(served: Served, since: int = 0) -> list[str]:
    """The ids of the models that were loaded, in order, by the log from line `since` on."""
    return [line["model"] for line in served.log[since:] if line["message"] == "worker loading"]
