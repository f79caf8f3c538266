"""The program as the supervisor starts it: phases, key, signals, exit codes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from local_llm_worker.key_guard import KEY_VARIABLE
from local_llm_worker.pooling.program import EXIT_REFUSED, HOST

KEY = "the worker's key"
START_SECONDS = 120
STOP_SECONDS = 20


@dataclass(frozen=True)
class Program:
    """A running worker that is ready."""

    process: subprocess.Popen[str]
    port: int
    phases: list[str]

    def client(self, key: str | None = KEY) -> httpx.Client:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"http://{HOST}:{self.port}", headers=headers, timeout=60)


def command(folder: Path, port: int, *further: str) -> list[str]:
    """The command line for one model."""
    program = [sys.executable, "-m", "local_llm_worker.pooling", "--model", str(folder)]
    return [*program, "--served-name", "tiny", "org/tiny", "--port", str(port), *further]


def environment(key: str | None = KEY) -> dict[str, str]:
    """This process' environment, in which the worker's package is found, and the key."""
    ours = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    path = os.pathsep.join(each for each in sys.path if each)
    return {**ours, "PYTHONPATH": path, **({} if key is None else {KEY_VARIABLE: key})}


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, *further: str) -> Iterator[Program]:
    """The program, from its `ready` on; killed if the test did not end it."""
    port = free_port()
    process = subprocess.Popen(
        command(folder, port, *further), env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        phases = []
        for line in process.stdout:
            phases.append(line.strip())
            if line.strip() == "phase: ready":
                break
        yield Program(process, port, phases)
    finally:
        process.kill()
        process.communicate(timeout=STOP_SECONDS)


@pytest.mark.timeout(START_SECONDS)
def test_life_of_a_worker(embedding_folder: Path) -> None:
    """It tells its phases, answers once ready, wants the key on every path, and ends with 0 on SIGTERM."""
    with running(embedding_folder, "--threads", "1") as program:
        assert program.phases == ["phase: import", "phase: weights", "phase: ready"]
        with program.client() as client, program.client(key=None) as stranger:
            assert client.get("/health").status_code == 200
            answer = client.post("/v1/embeddings", json={"model": "tiny", "input": "the cat"})
            assert len(answer.json()["data"][0]["embedding"]) == 32
            for path in ("/health", "/v1/models", "/v1/embeddings", "/rerank", "/", "/nothing", "/docs"):
                assert stranger.get(path).status_code == 401, path
                assert stranger.post(path, json={}).status_code == 401, path
            # Idle connections, as the supervisor keeps them, must not delay the end.
            program.process.send_signal(signal.SIGTERM)
            assert program.process.wait(STOP_SECONDS) == 0
        with pytest.raises(httpx.ConnectError), program.client() as late:
            late.get("/health")


@pytest.mark.timeout(START_SECONDS)
def test_sigterm_lets_running_requests_finish(reranker_folder: Path) -> None:
    """A request that is being computed at SIGTERM gets its answer; then the program ends with 0."""
    documents = ["the cat"] * 2000
    with running(reranker_folder, "--threads", "1") as program:
        with socket.create_connection((HOST, program.port)) as connection:
            body = httpx.Request(
                "POST", "http://worker/rerank", json={"model": "tiny", "query": "a", "documents": documents}
            )
            head = f"POST /rerank HTTP/1.1\r\nHost: worker\r\nAuthorization: Bearer {KEY}\r\n"
            head += f"Content-Length: {len(body.content)}\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the server is reading this request
            program.process.send_signal(signal.SIGTERM)
            connection.sendall(body.content)
            answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
        assert program.process.wait(STOP_SECONDS) == 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"relevance_score") == len(documents)


@pytest.mark.parametrize("case", ["no key", "port in use", "no folder", "a chat model"])
def test_refusals(embedding_folder: Path, generative_folder: Path, tmp_path: Path, case: str) -> None:
    """What cannot work ends at once with code 2 and one line that says why."""
    folder, key, expected = embedding_folder, KEY, ""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1] if case == "port in use" else free_port()
        match case:
            case "no key":
                key, expected = None, KEY_VARIABLE
            case "port in use":
                expected = "in use"
            case "no folder":
                folder, expected = tmp_path / "missing", "has no config.json"
            case "a chat model":
                folder = tmp_path / "chat"
                folder.symlink_to(generative_folder)
                expected = "--kind"
        ended = subprocess.run(
            command(folder, port),
            env=environment(key),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert ended.returncode == EXIT_REFUSED
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
