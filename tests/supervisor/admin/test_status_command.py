"""`local-llm status`, `load` and `unload`: what people see, and what programs get."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local_llm.admin.tables import duration_in_words, status_view
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import running
from tests.supervisor.test_cli import fails, run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("status")
    write_fake_model(folder / "models", "org/a")
    write_fake_model(folder / "models", "dies", die_at_start=3, say="CUDA out of memory")
    with running(folder) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("locked")
    with running(folder, api_keys=["secret"]) as served:
        yield served


def test_what_goes_on(served: Served) -> None:
    """After a load and a failed one: the worker, the cooldown, what was seen of both."""
    assert run("load", "dies", "--url", served.url).returncode == 2
    done = run("load", "a", "--url", served.url + "/v1/")
    assert (done.returncode, done.stdout) == (0, "org/a is loaded\n")
    done = run("status", "--url", served.url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "1 of 1 place taken" in lines["local-llm"]
    assert lines["w2"].split()[1:3] == ["org/a", "serving"]
    assert "dies" in lines
    assert "COOLING" in lines
    assert "memory is full" in done.stdout
    assert "ast lines" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 200


def test_for_programs(served: Served) -> None:
    """The whole status as JSON, and nothing else."""
    done = run("status", "--url", served.url, "--json")
    told = json.loads(done.stdout)
    assert {"version", "workers", "waiting", "cooldowns", "models", "limits"} <= set(told)


def test_unload(served: Served) -> None:
    """Said whether there was something to unload."""
    run("load", "a", "--url", served.url)
    assert run("unload", "a", "--url", served.url).stdout == "org/a is being unloaded\n"
    served.wait_for_log("worker gone", model="org/a")
    assert run("unload", "org/a", "--url", served.url).stdout == "org/a is not loaded\n"
    assert "does not exist" in fails("unload", "missing", "--url", served.url)


def test_a_key(locked: Served) -> None:
    """By flag or environment; without one it is said how."""
    said = fails("status", "--url", locked.url)
    assert "--key" in said
    assert "LOCAL_LLM_KEY" in said
    assert "--key" in fails("status", "--url", locked.url, "--key", "wrong")
    assert "--key" in fails("status", "--url", locked.url, "--watch")
    assert run("status", "--url", locked.url, "-k", "secret").returncode == 0
    environment = {"LOCAL_LLM_KEY": "secret"}
    assert run("status", "--url", locked.url, environment=environment).returncode == 0
    assert "secret" not in run("status", "--help", environment=environment).stdout


def test_a_server_without_admin(tmp_path: Path) -> None:
    """Says that it is switched off there."""
    with running(tmp_path, admin=False) as served:
        assert "switched off" in fails("status", "--url", served.url)


def test_nobody_there() -> None:
    """One line that says where it looked and what to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (line,) = fails("status", "--url", url).splitlines()
    assert url in line
    assert "--url" in line


@pytest.mark.parametrize(
    "url", ["nonsense", "http://", "http://[", "ftp://127.0.0.1", "http://127.0.0.1:99999"]
)
def test_what_is_no_url(url: str) -> None:
    """One line, no traceback."""
    assert len(fails("status", "--url", url).splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "words"), [(b"<html>", "no local-llm server"), (b"[]", "no local-llm server")]
)
def test_another_program_is_there(body: bytes, words: str) -> None:
    """Is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        asking = subprocess.Popen(
            [sys.executable, "-m", "local_llm", "status", "--url", url], stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        with connection:
            connection.recv(10_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            _, said = asking.communicate(timeout=60)
    assert asking.returncode == 2
    assert words in said


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_watching_outlives_the_server(tmp_path: Path) -> None:
    """One object a line; another server at the same address goes on with it; Ctrl-C is no error."""
    port = free_port()
    command = [sys.executable, "-m", "local_llm", "status", "--url", f"http://127.0.0.1:{port}"]
    with subprocess.Popen([*command, "--watch", "--json"], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        pids = []
        for _ in range(2):
            with running(tmp_path, port=port) as served:
                told = json.loads(watching.stdout.readline())
                while told["pid"] != served.process.pid:  # a line that was written before
                    told = json.loads(watching.stdout.readline())
                pids.append(told["pid"])
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
    assert len(set(pids)) == 2


def test_watching_as_a_person(tmp_path: Path) -> None:
    """The status, then what is wrong with the server, then Ctrl-C: nothing of a traceback."""
    port = free_port()
    command = [sys.executable, "-m", "local_llm", "status", "--url", f"http://127.0.0.1:{port}", "--watch"]
    environment = {"TERM": "xterm", "FORCE_COLOR": "1", "COLUMNS": "200", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        with running(tmp_path, port=port):
            _read_until(watching.stdout, "No model is loaded.")
        _read_until(watching.stdout, "Trying again.")
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.stderr.read() == ""
        assert watching.wait(60) == 0


def _read_until(stream: Any, words: str) -> None:
    for line in stream:
        if words in line:
            return
    raise AssertionError(f"{words!r} never came")


def worker(**facts: Any) -> dict[str, Any]:
    memory = {"resident_bytes": 3 << 30, "proportional_bytes": 2_000_000_000, "gpu_bytes": 18_200_000_000}
    return {
        "id": "w7",
        "model": "org/a[b]",
        "phase": "loading",
        "since_seconds": 187,
        "progress": "weights 40%",
        "leases": 3,
        "waiting": 4,
        "pid": 4711,
        "memory": memory,
        **facts,
    }


def test_the_tables() -> None:
    """All there is to see, names taken literally, unknown figures as a dash."""
    unknown = {"resident_bytes": None, "proportional_bytes": None, "gpu_bytes": None}
    seen = {"starts": 2, "failures": 2, "last_error_seconds_ago": 61, "switch_seconds": None}
    status = {
        "version": "1.2",
        "uptime_seconds": 90_000,
        "waiting": {"total": 6, "by_model": {"org/a[b]": 4, "c": 2}},
        "workers": [worker(), worker(id="w8", progress=None, phase="leaving", pid=None, memory=unknown)],
        "templates": [
            {"engine": "vllm", "state": "ready", "seconds": 9.7, "proportional_bytes": 740_000_000},
            {"engine": "transformers", "state": "making", "seconds": None, "proportional_bytes": None},
        ],
        "cooldowns": [{"model": "d", "failures": 2, "seconds_left": 12.3, "error": "it\nbroke"}],
        "models": {
            "d": {**seen, "last_error": "not said twice"},
            "e": {**seen, "last_error": "[red]it died. Its last lines:\nbroke"},
        },
        "limits": {"residency": {"max_models": 2}},
    }
    console = Console(width=160, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(status_view(status))
    shown = captured.get()
    for words in ("up 25:00 h", "6 waiting", "2 of 2 places", "org/a[b]", "loading: weights 40%", "3:07 min"):
        assert words in shown
    for words in (
        "2.0 GB",
        "18.2 GB",
        "4711",
        "their turn: c (2)",
        "12.3 s",
        "vllm (740 MB), transformers (making)",
        "[red]it died. (1:01 min ago)",
    ):
        assert words in shown
    for words in ("broke", "last lines", "not said twice"):
        assert words not in shown
    assert shown.split("w8")[1].splitlines()[0].split()[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (4.21, "4.2 s"),
        (60, "1:00 min"),
        (3599, "59:59 min"),
        (18_720, "5:12 h"),
        (864_000, "10 d"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    """As short as they can be read."""
    assert duration_in_words(seconds) == words
