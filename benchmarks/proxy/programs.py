"""The programs of the benchmark: what loads, what answers, and the contenders between the two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from local_llm.worker.launch import free_port
from tests.fake_engine import write_fake_model

HERE = Path(__file__).parent
CACHE = Path(".cache/bench")
LITELLM_PYTHON = CACHE / "litellm" / "bin" / "python"
MODEL = "bench"
CHAT = "/v1/chat/completions"
BODY_BYTES = 2048
START_SECONDS = 120.0
MAX_CONCURRENT = 1024


class Missing(Exception):
    """A program that the benchmark needs is not here; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that listens.

    Attributes:
        name: in the results.
        port: where.
        pid: of the process that does the work.
    """

    name: str
    port: int
    pid: int

    def rss_mb(self) -> float:
        """What it holds at this moment."""
        rss: int = psutil.Process(self.pid).memory_info().rss
        return rss / 1e6


def install(*packages: str) -> None:
    """Gets Debian packages whose program of the same name is missing, if this is root.

    Raises:
        Missing: it is not, or that failed.
    """
    wanted = [each for each in packages if shutil.which(each, path=search_path()) is None]
    if not wanted:
        return
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *wanted]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{', '.join(wanted)} missing; as root: {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for each in (["apt-get", "update", "--quiet"], command):
        done = subprocess.run(each, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise Missing(f"{' '.join(each)} failed: {done.stderr.strip()[-500:]}")


def search_path() -> str:
    """Where programs are looked for; Debian's nginx is in a place that only root's path has."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


def compiled(name: str) -> Path:
    """The program made from `name`.c here, made anew if that is younger.

    Raises:
        Missing: there is no compiler.
    """
    source, program = HERE / f"{name}.c", CACHE / "proxy" / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    if shutil.which("gcc") is None:
        raise Missing("gcc is missing; as root: apt-get install gcc libc6-dev")
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
    return program


def body(*, stream: bool) -> bytes:
    """A chat request of BODY_BYTES."""
    asked = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": ""}]}
    missing = BODY_BYTES - len(json.dumps(asked))
    asked["messages"] = [{"role": "user", "content": "x" * missing}]
    return json.dumps(asked).encode()


@contextmanager
def worker() -> Iterator[Contender]:
    """The worker alone: what a client gets without a proxy, and what nginx and the others are put before."""
    port = free_port()
    command = [compiled("worker"), "--served-model-name", MODEL, "--port", str(port)]
    with _started("direct", port, command) as direct:
        yield direct


@contextmanager
def nginx(folder: Path, worker_port: int) -> Iterator[Contender]:
    """nginx: one worker process, connections kept both ways, nothing buffered, nothing logged."""
    port = free_port()
    temporary = "\n".join(
        f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    {temporary}
    access_log off; keepalive_requests 1000000000; proxy_buffering off; proxy_request_buffering off;
    upstream worker {{ server 127.0.0.1:{worker_port}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
""")
    program = shutil.which("nginx", path=search_path())
    with _started("nginx", port, [program or "nginx", "-p", folder, "-e", "stderr", "-c", config]) as master:
        process = psutil.Process(master.pid).children()[0]
        yield Contender("nginx", port, process.pid)


@contextmanager
def ours(folder: Path) -> Iterator[Contender]:
    """`local-llm serve`, whose engine is the worker; it logs warnings only, since nginx logs nothing."""
    port = free_port()
    engine = folder / "engine"
    engine.write_text(f'#!/bin/sh\nexec "{compiled("worker").absolute()}" "$@"\n')
    engine.chmod(0o755)
    write_fake_model(folder / "models", MODEL)
    settings = {
        "port": port,
        "state_dir": str(folder / "state"),
        "log_level": "warning",
        "engines": {"vllm": {"python": str(engine), "warm": "off", "max_concurrent": MAX_CONCURRENT}},
    }
    config = folder / "local-llm.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "local_llm", "serve", "--models", folder / "models", "--config", config]
    with _started("local-llm", port, command) as server:
        yield server


@contextmanager
def plain_httpx(worker_port: int) -> Iterator[Contender]:
    """The forty lines of plain_httpx.py."""
    port = free_port()
    command = [sys.executable, HERE / "plain_httpx.py", str(port), f"http://127.0.0.1:{worker_port}"]
    with _started("Starlette + httpx", port, command) as server:
        yield server


@contextmanager
def litellm(folder: Path, worker_port: int) -> Iterator[Contender]:
    """LiteLLM's proxy, one worker process, from the environment that `make bench-proxy` prepares."""
    port = free_port()
    target = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{worker_port}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    config.write_text(yaml.safe_dump({"model_list": [{"model_name": MODEL, "litellm_params": target}]}))
    command = [LITELLM_PYTHON.parent / "litellm", "--config", config, "--host", "127.0.0.1"]
    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # ours asks for no key either
        "NO_PROXY": "127.0.0.1",
    }
    with _started("LiteLLM", port, [*command, "--port", str(port), "--num_workers", "1"], quiet) as server:
        yield server


@contextmanager
def _started(
    name: str, port: int, command: Sequence[object], environment: dict[str, str] | None = None
) -> Iterator[Contender]:
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "proxy" / f"{name.replace(' ', '')}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            [str(each) for each in command],
            stdout=said,
            stderr=said,
            env={**os.environ, **(environment or {})},
        )
    try:
        _wait_until_it_answers(name, port, process, log)
        yield Contender(name, port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{CHAT}", body(stream=False), {"content-type": "application/json"}
    )
    deadline = time.monotonic() + START_SECONDS
    while not _answers(request):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Missing(f"{name} does not answer: {log.read_text()[-1000:]}")
        time.sleep(0.1)


def _answers(request: urllib.request.Request) -> bool:
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
