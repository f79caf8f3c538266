"""Clients that leave: while they wait, and in the middle of their answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import (
    CHAT,
    SeenEngine,
    asking,
    health,
    leave_while_waiting,
    loads,
    running,
    the_engine,
    until,
)

GUSH = 200_000
"""Chunks of 170 bytes: many times what the sockets on the way hold."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("leaving")
    write_fake_model(folder / "models", "a")
    write_fake_model(folder / "models", "talks", chunks=100_000, chunk_seconds=0.02)
    write_fake_model(folder / "models", "gushes", chunks=GUSH)
    write_fake_model(folder / "models", "thinks", answer_seconds=600)
    write_fake_model(folder / "models", "loads", slow_start=1.5)
    write_fake_model(folder / "models", "never", slow_start=600)
    with running(folder) as served:
        yield served


def stages(served: Served) -> list[tuple[str, str]]:
    """Each worker's model and phase."""
    return [(each["model"], each["phase"]) for each in health(served)["workers"]]


def test_a_waiter_who_left_is_forgotten_and_the_load_goes_on(served: Served) -> None:
    """The load belongs to no client: who asks next finds it ready."""
    mark = len(served.log)
    connection = leave_while_waiting(served, CHAT, asking("loads"))
    until(lambda: stages(served) == [("loads", "loading")])
    connection.close()
    until(lambda: health(served)["waiting"] == {})
    served.wait_for_log(CHAT, after=mark, status=499, model="loads")
    until(lambda: health(served)["active_model"] == "loads")
    with served.client() as client:
        assert client.post(CHAT, json=asking("loads")).headers["x-fake-model"] == "loads"
    assert loads(served, mark) == ["loads"]


def test_a_load_nobody_waits_for_is_given_up_for_another_model(served: Served) -> None:
    """At once, not when it is ready; and only then: it first goes on."""
    connection = leave_while_waiting(served, CHAT, asking("never"))
    # Not sooner: who leaves while its predecessor is still on its way out leaves no load behind.
    until(lambda: stages(served) == [("never", "loading")])
    connection.close()
    until(lambda: health(served)["waiting"] == {})
    assert stages(served) == [("never", "loading")]
    with served.client() as client:
        assert client.post(CHAT, json=asking("a")).headers["x-fake-model"] == "a"
    assert [each["model"] for each in health(served)["workers"]] == ["a"]


def test_one_of_several_waiters_leaves(served: Served) -> None:
    """The others are served."""
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(httpx.post(served.url + CHAT, json=asking("loads"), timeout=60).status_code)

    stays = threading.Thread(target=ask)
    leaver = leave_while_waiting(served, CHAT, asking("loads"))
    stays.start()
    until(lambda: health(served)["waiting"] == {"loads": 2})
    leaver.close()
    stays.join()
    assert statuses == [200]


def stands_still(engine: SeenEngine) -> None:
    """Waits until the generation has ended: nothing runs, and no token comes for ten times their rhythm."""
    until(lambda: engine.metric("num_requests_running") == 0)
    tokens = engine.metric("generation_tokens_total")
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        assert engine.metric("generation_tokens_total") == tokens


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/completions"])
def test_leaving_mid_stream_stops_the_generation(served: Served, path: str) -> None:
    """Nothing runs in the worker any more, its token counter stands still, and it serves on."""
    mark = len(served.log)
    with (
        served.client() as client,
        client.stream("POST", path, json=asking("talks", stream=True)) as answer,
    ):
        pieces = answer.iter_raw()  # held: a generator that is let go closes the connection
        next(pieces)
        engine = the_engine(served)
        assert engine.metric("num_requests_running") == 1
    served.wait_for_log(path, after=mark, status=499)
    stands_still(engine)
    assert health(served)["workers"][0]["requests"] == 0
    with served.client() as client:
        assert client.post(CHAT, json=asking("talks")).headers["x-fake-pid"] == str(engine.process.pid)


def test_leaving_before_the_first_byte_stops_the_generation(served: Served) -> None:
    """An answer that is not streamed is computed for nobody, too."""
    connection = leave_while_waiting(served, CHAT, asking("thinks"))
    until(lambda: health(served)["active_model"] == "thinks")
    engine = the_engine(served)
    until(lambda: engine.metric("num_requests_running") == 1)
    connection.close()
    stands_still(engine)


def test_a_client_that_does_not_read_holds_the_worker_back(served: Served) -> None:
    """Its answer is not piled up here: what it does not take is not taken from the worker either."""
    connection = leave_while_waiting(served, CHAT, asking("gushes", stream=True))
    until(lambda: health(served)["active_model"] == "gushes")
    engine = the_engine(served)
    seen = [-1.0]

    def stalled() -> bool:
        seen.append(engine.metric("generation_tokens_total"))
        time.sleep(0.2)
        return seen[-1] == engine.metric("generation_tokens_total") > 0

    until(stalled)
    assert engine.metric("num_requests_running") == 1
    assert seen[-1] < GUSH
    connection.close()
    stands_still(engine)


def test_many_clients_that_leave_at_once(served: Served) -> None:
    """Half of them before, half of them in their answers; no lease, no waiter, no traceback is left."""
    mark = len(served.log)
    with served.client() as client:
        client.post(CHAT, json=asking("talks"))
    engine = the_engine(served)
    connections = [leave_while_waiting(served, CHAT, asking("talks", stream=True)) for _ in range(20)]
    connections += [leave_while_waiting(served, CHAT, asking("a")) for _ in range(20)]
    until(lambda: engine.metric("num_requests_running") == 20)
    until(lambda: health(served)["waiting"] == {"a": 20})
    for connection in connections:
        connection.close()
    until(lambda: health(served)["waiting"] == {})
    until(lambda: all(each["requests"] == 0 for each in health(served)["workers"]))
    assert not [line for line in served.log[mark:] if line["level"] == "error"], json.dumps(served.log[-3:])
