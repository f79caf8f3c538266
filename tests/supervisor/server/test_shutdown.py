"""The end: in peace, by force, and by murder. Nothing is ever left behind."""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from local_llm.worker.run_folder import RunFolder
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, connect, health, leave_while_waiting, running, until
from tests.supervisor.worker.stage import segments

LONG: dict[str, Any] = {"chunks": 100_000, "chunk_seconds": 0.05}


def run_folders() -> list[Path]:
    """What a supervisor keeps temporarily, and removes."""
    return list(Path(tempfile.gettempdir()).glob("local-llm-run-*/*"))


def is_free(url: str) -> bool:
    """Whether another server could listen there now."""
    port = urlsplit(url).port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def nothing_is_left(served: Served, processes: list[psutil.Process]) -> None:
    """No process, no folder, no segment, no port."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert not run_folders()
    assert not segments()
    assert is_free(served.url)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_idle(tmp_path: Path, sent: signal.Signals) -> None:
    """Never used, or with an idle worker: 0, at once."""
    write_fake_model(tmp_path / "models", "a", leak_child=True, leak_shm=True)
    with running(tmp_path) as served:
        with served.client() as client:
            client.post(CHAT, json=asking("a"))
        processes = served.descendants()
        assert len(processes) == 3
        assert served.end(sent) == 0
        nothing_is_left(served, processes)
    with running(tmp_path) as served:
        assert served.end(sent) == 0
        nothing_is_left(served, [])


def test_what_runs_may_finish_and_what_waits_is_refused(tmp_path: Path) -> None:
    """A stream ends in peace, a waiter gets 503, nobody new comes in; then 0."""
    write_fake_model(tmp_path / "models", "streams", chunks=8, chunk_seconds=0.25)
    write_fake_model(tmp_path / "models", "b")
    waiters: list[httpx.Response] = []
    with running(tmp_path) as served, served.client() as client:
        client.post(CHAT, json=asking("streams"))
        with client.stream("POST", CHAT, json=asking("streams", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            thread = threading.Thread(
                target=lambda: waiters.append(httpx.post(served.url + CHAT, json=asking("b"), timeout=60))
            )
            thread.start()
            until(lambda: health(served)["waiting"] == {"b": 1})
            processes = served.descendants()
            served.process.send_signal(signal.SIGTERM)
            thread.join()
            assert (waiters[0].status_code, waiters[0].json()["error"]["code"]) == (503, "shutting_down")
            until(lambda: is_free(served.url))
            text += "".join(pieces)
        assert text.count("token") == 8
        assert text.endswith("[DONE]\n\n")
        assert served.process.wait(20) == 0
        nothing_is_left(served, processes)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_forces(tmp_path: Path, second: signal.Signals) -> None:
    """The stream is cut with an error event, not with its grace; 0 at once, and nothing is left."""
    write_fake_model(tmp_path / "models", "endless", ignore_sigterm=True, leak_child=True, **LONG)
    with running(tmp_path, stop={"shutdown_grace_seconds": 600, "grace_seconds": 600}) as served:
        with (
            served.client() as client,
            client.stream("POST", CHAT, json=asking("endless", stream=True)) as answer,
        ):
            pieces = answer.iter_text()
            text = next(pieces)
            processes = served.descendants()
            served.process.send_signal(signal.SIGTERM)
            served.wait_for_log("SIGTERM: draining")
            text += next(pieces)
            served.process.send_signal(second)
            text += "".join(pieces)
        assert '"code": "shutting_down"' in text.split("\n\n")[-2]
        assert served.process.wait(20) == 0
        nothing_is_left(served, processes)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_while_the_worker_is_being_stopped(tmp_path: Path, second: signal.Signals) -> None:
    """Nobody is connected any more, the worker takes its time: it is killed."""
    write_fake_model(tmp_path / "models", "deaf", ignore_sigterm=True)
    with running(tmp_path, stop={"grace_seconds": 600}) as served:
        with served.client() as client:
            client.post(CHAT, json=asking("deaf"))
        processes = served.descendants()
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_log("worker stopping", model="deaf")
        served.wait_for_log("all connections are closed")
        served.process.send_signal(second)
        assert served.process.wait(20) == 0
        nothing_is_left(served, processes)


def test_a_grace_that_is_over(tmp_path: Path) -> None:
    """A stream that outlasts `shutdown_grace_seconds` is cut with an error event."""
    write_fake_model(tmp_path / "models", "endless", **LONG)
    with running(tmp_path, stop={"shutdown_grace_seconds": 0.5}) as served:
        with (
            served.client() as client,
            client.stream("POST", CHAT, json=asking("endless", stream=True)) as answer,
        ):
            pieces = answer.iter_text()
            text = next(pieces)
            served.process.send_signal(signal.SIGTERM)
            text += "".join(pieces)
        event = text.split("\n\n")[-2]
        assert '"code": "shutting_down"' in event
        assert "shutdown_grace_seconds" in event
        assert served.process.wait(20) == 0
        nothing_is_left(served, [])


def test_a_client_that_does_not_read_does_not_hold_it_up(tmp_path: Path) -> None:
    """Its answer is cut by the grace, though nothing can be told to it."""
    write_fake_model(tmp_path / "models", "gushes", chunks=1_000_000)
    with running(tmp_path, stop={"shutdown_grace_seconds": 0.5, "grace_seconds": 0.5}) as served:
        with leave_while_waiting(served, CHAT, asking("gushes", stream=True)):
            until(lambda: health(served)["active_model"] == "gushes")
            until(lambda: health(served)["workers"][0]["requests"] == 1)
            processes = served.descendants()
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(20) == 0
        nothing_is_left(served, processes)


def test_while_a_model_loads(tmp_path: Path) -> None:
    """The load is given up, who waits for it is told."""
    write_fake_model(tmp_path / "models", "slow", slow_start=600)
    answers: list[httpx.Response] = []
    with running(tmp_path) as served:
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(served.url + CHAT, json=asking("slow"), timeout=60))
        )
        thread.start()
        served.wait_for_log("worker loading", model="slow")
        processes = served.descendants()
        assert served.end() == 0
        thread.join()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "shutting_down")
        nothing_is_left(served, processes)


def test_idle_connections_do_not_hold_it_up(tmp_path: Path) -> None:
    """Neither kept alive, nor opened and silent, nor in the middle of a request's header or body."""
    with running(tmp_path, stop={"shutdown_grace_seconds": 1, "grace_seconds": 0}) as served:
        with served.client() as client, connect(served), connect(served) as header, connect(served) as body:
            client.get("/health")
            header.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
            body.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            began = time.monotonic()
            assert served.end() == 0
            assert time.monotonic() - began < 15
        nothing_is_left(served, [])


def test_murder(tmp_path: Path) -> None:
    """SIGKILL: nannies end everything, also mid-stream and with a daemon; the next run tidies its folder."""
    flags: dict[str, Any] = {**LONG, "leak_child": True, "leak_shm": True, "ignore_sigterm": True}
    write_fake_model(tmp_path / "models", "all", **flags)
    with running(tmp_path) as served:
        with (
            served.client() as client,
            client.stream("POST", CHAT, json=asking("all", stream=True)) as answer,
        ):
            pieces = answer.iter_raw()
            next(pieces)
            processes = served.descendants()
            assert len(processes) == 3
            assert served.end(signal.SIGKILL) == -signal.SIGKILL
            _, alive = psutil.wait_procs(processes, timeout=10)
            assert not alive
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        until(lambda: not segments())
        assert is_free(served.url)
    with RunFolder() as folder:
        assert run_folders() == [folder.path]
