"""Workers that fail in every way there is: the client is told, and the next model is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import (
    CHAT,
    asking,
    connect,
    engine_processes,
    health,
    loads,
    request_bytes,
    running,
    the_engine,
    until,
)
from tests.supervisor.worker.stage import segments

MODELS: dict[str, dict[str, Any]] = {
    "fine": {},
    "dies": {"die_at_start": 3, "say": "CUDA out of memory"},
    "wrong_name": {"wrong_name": True},
    "never_ready": {"never_ready": True},
    "hang_health": {"hang_health": True},
    "garbage": {"garbage": True},
    "garrulous": {"fill_log": 20_000_000},
    "crashes": {"crash_after": 1},
    "cut": {"die_mid_stream": 2},
    "half": {"die_mid_answer": True},
    "deaf": {"ignore_sigterm": True},
    "leaks_child": {"leak_child": True},
    "leaks_shm": {"leak_shm": True},
    "all_at_once": {"ignore_sigterm": True, "leak_child": True, "leak_shm": True, "die_mid_stream": 1},
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("misbehaving")
    for name, flags in MODELS.items():
        write_fake_model(folder / "models", name, **flags)
    with running(folder, load={"max_seconds": 2}, stop={"grace_seconds": 0.5}) as served:
        yield served


def is_fine(served: Served) -> None:
    """Another model is served as if nothing had been, and is all there is."""
    with served.client() as client:
        assert client.post(CHAT, json=asking("fine")).headers["x-fake-model"] == "fine"
    assert len(engine_processes(served)) == 1
    assert len(served.descendants()) == 2, served.descendants()
    assert not segments()


def test_a_worker_that_dies_at_its_start(served: Served) -> None:
    """503 with its exit code, its last words and what to do; not tried again for a while, which is told."""
    mark = len(served.log)
    with served.client() as client:
        answer = client.post(CHAT, json=asking("dies"))
        message = answer.json()["error"]["message"]
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
        for part in ("exit code 3", "dying as told", "CUDA out of memory", "smaller or quantized"):
            assert part in message
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        again = client.post(CHAT, json=asking("dies"))
        assert (again.status_code, again.json()["error"]["code"]) == (503, "model_load_failed")
        assert "exit code 3" in again.json()["error"]["message"]
        assert int(again.headers["retry-after"]) <= int(answer.headers["retry-after"])
    assert loads(served, mark) == ["dies"]
    is_fine(served)


def test_all_who_wait_for_a_failing_load_are_told(served: Served, tmp_path: Path) -> None:
    """Not only the one who was first."""
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(
                httpx.post(served.url + CHAT, json=asking("never_ready"), timeout=60).status_code
            )
        )
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [503] * 5
    is_fine(served)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("wrong_name", "somebody-else"),
        ("hang_health", "load.max_seconds"),
        ("garbage", "load.max_seconds"),
    ],
)
def test_a_worker_that_does_not_become_ready(served: Served, model: str, reason: str) -> None:
    """503 that says why, and the worker is ended."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking(model))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
    assert reason in answer.json()["error"]["message"]
    assert "retry-after" in answer.headers
    is_fine(served)


def test_a_log_without_an_end(served: Served) -> None:
    """Twenty megabytes without a line's end neither block the worker nor fill our memory."""
    with served.client() as client:
        assert client.post(CHAT, json=asking("garrulous")).status_code == 200
    assert psutil.Process(served.process.pid).memory_info().rss < 150 << 20
    is_fine(served)


def test_a_worker_that_is_killed_in_the_middle_of_a_request(served: Served) -> None:
    """Before its answer began: 502 that says how it ended. The next request gets a fresh worker."""
    answers: list[httpx.Response] = []
    with served.client() as client:
        client.post(CHAT, json=asking("deaf"))
        engine = the_engine(served)
        engine.process.suspend()  # it takes the request and answers nothing
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(served.url + CHAT, json=asking("deaf"), timeout=60))
        )
        thread.start()
        until(lambda: health(served)["workers"][0]["requests"] == 1)
        engine.process.kill()
        thread.join()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (502, "worker_died")
        assert "SIGKILL" in answers[0].json()["error"]["message"]
        answer = client.post(CHAT, json=asking("deaf"))
        assert answer.status_code == 200
        assert answer.headers["x-fake-pid"] != str(engine.process.pid)
    is_fine(served)


def test_a_worker_that_is_not_there_when_its_request_comes(served: Served) -> None:
    """Nothing was sent to it, so the request is tried on a fresh worker; the client notices nothing."""
    answers: list[httpx.Response] = []
    with served.client() as client:
        client.post(CHAT, json=asking("fine"))
        engine = the_engine(served)
        nanny = engine.process.parent()
        assert nanny is not None
        nanny.suspend()  # so that nobody tells the supervisor
        engine.process.kill()
        until(lambda: engine.process.status() == psutil.STATUS_ZOMBIE)
        thread = threading.Thread(
            target=lambda: answers.append(httpx.post(served.url + CHAT, json=asking("fine"), timeout=60))
        )
        thread.start()
        until(lambda: health(served)["workers"][0]["requests"] == 1)
        nanny.resume()
        thread.join()
    assert answers[0].status_code == 200
    assert answers[0].headers["x-fake-pid"] != str(engine.process.pid)
    is_fine(served)


def test_a_worker_that_crashes_while_it_is_idle(served: Served) -> None:
    """The next request does not see it: a fresh worker is there, or comes."""
    with served.client() as client:
        assert client.post(CHAT, json=asking("crashes")).status_code == 200
        served.wait_for_log("worker w", level="warning")
        until(lambda: health(served)["workers"] == [])
        assert client.post(CHAT, json=asking("crashes")).status_code == 200
    until(lambda: health(served)["workers"] == [])
    is_fine(served)


def test_a_plain_answer_that_breaks_off(served: Served) -> None:
    """Its header has gone out: the connection breaks, so that nobody takes the half for the whole."""
    with (
        served.client() as client,
        pytest.raises(httpx.RemoteProtocolError, match="without sending complete"),
    ):
        client.post(CHAT, json=asking("half"))
    with connect(served) as connection:
        connection.sendall(request_bytes(CHAT, b'{"model": "fine"}'))
        assert connection.recv(12) == b"HTTP/1.1 200"
    is_fine(served)


def test_a_stream_that_breaks_off(served: Served) -> None:
    """What came is there, then an error event, then a proper end; no `[DONE]`."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking("cut", stream=True))
    assert answer.status_code == 200
    events = [event for event in answer.text.split("\n\n") if event.strip()]
    assert ["token" in event for event in events] == [True, True, False]
    assert '"code": "worker_died"' in events[-1]
    assert "[DONE]" not in answer.text
    is_fine(served)


@pytest.mark.parametrize("model", ["deaf", "leaks_child", "leaks_shm", "all_at_once"])
def test_a_worker_that_does_not_go_quietly(served: Served, model: str) -> None:
    """Deaf to SIGTERM, with a daemon of its own, with shared memory: a switch leaves nothing of it."""
    with served.client() as client:
        assert client.post(CHAT, json=asking(model)).headers["x-fake-model"] == model
        before = served.descendants()
        assert len(before) >= (3 if "child" in model else 2)
        is_fine(served)
    assert not [each for each in before if each.is_running()]


def test_a_worker_whose_nanny_is_killed(served: Served) -> None:
    """The supervisor sweeps instead, and starts a fresh one for who comes next."""
    with served.client() as client:
        client.post(CHAT, json=asking("leaks_child"))
        before = served.descendants()
        psutil.Process(served.process.pid).children()[0].kill()
        psutil.wait_procs(before, timeout=10)
        assert client.post(CHAT, json=asking("leaks_child")).status_code == 200
    assert not [each for each in before if each.is_running()]
    is_fine(served)


def test_a_stream_that_outlasts_the_drain(tmp_path: Path) -> None:
    """It is cut with an error event once `drain_max_seconds` are over, and the other model is served."""
    write_fake_model(tmp_path / "models", "endless", chunks=100_000, chunk_seconds=0.05)
    write_fake_model(tmp_path / "models", "fine")
    with (
        running(tmp_path, queue={"drain_max_seconds": 0.5, "patience": 0}) as served,
        served.client() as client,
    ):
        with client.stream("POST", CHAT, json=asking("endless", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            began = time.monotonic()
            thread = threading.Thread(
                target=lambda: httpx.post(served.url + CHAT, json=asking("fine"), timeout=60)
            )
            thread.start()
            text += "".join(pieces)
        thread.join()
        assert time.monotonic() - began >= 0.5
        assert text.count("token") > 5
        assert "drain_max_seconds" in text.split("\n\n")[-2]
        assert health(served)["active_model"] == "fine"


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    """A wrong `engines.*.python` is told to who asks, with the path."""
    write_fake_model(tmp_path / "models", "a")
    nowhere = str(tmp_path / "no" / "python")
    with running(tmp_path, engines={"vllm": {"python": nowhere}}) as served, served.client() as client:
        answer = client.post(CHAT, json=asking("a"))
    assert answer.status_code == 503
    assert nowhere in answer.json()["error"]["message"]
