"""What the log says of requests, and what it never says."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, leave_while_waiting, running, the_engine

KEY, PROMPT = "marker-of-the-key-7f3a", "marker-of-the-prompt-91cc"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("access_log")
    write_fake_model(folder / "models", "a")
    write_fake_model(folder / "models", "timed", answer_seconds=0.2, chunks=2, chunk_seconds=0.2)
    write_fake_model(folder / "models", "cut", die_mid_stream=1)
    write_fake_model(folder / "models", "slow", slow_start=600)
    with running(folder, api_keys=[KEY]) as served:
        yield served


def test_a_request_has_its_line(served: Served) -> None:
    """Id, model, worker, status and the four times, which add up."""
    headers = {"x-request-id": "mine", "x-api-key": KEY}
    with served.client(headers=headers) as client:
        client.post(CHAT, json=asking("timed", stream=True))
        line = served.wait_for_log(CHAT, request_id="mine")
        assert (line["model"], line["worker"][0], line["status"], line["error"]) == ("timed", "w", 200, None)
        assert 0 < line["switch_seconds"] <= line["wait_seconds"] < line["first_byte_seconds"]
        assert line["first_byte_seconds"] >= line["wait_seconds"] + 0.2
        assert line["total_seconds"] >= line["first_byte_seconds"] + 0.2
        assert line["sent_bytes"] > 100
        client.post(CHAT, json=asking("timed"), headers={"x-request-id": "second"})
    line = served.wait_for_log(CHAT, request_id="second")
    assert line["switch_seconds"] == 0
    assert line["wait_seconds"] < 0.2 <= line["first_byte_seconds"]


def test_a_failure_is_named(served: Served) -> None:
    """Also within a stream that had begun with 200, and of clients that left."""
    with served.client(headers={"x-api-key": KEY}) as client:
        client.post(CHAT, json=asking("nowhere"), headers={"x-request-id": "unknown"})
        client.post(CHAT, json=asking("cut", stream=True), headers={"x-request-id": "cut"})
    assert served.wait_for_log(CHAT, request_id="unknown")["error"] == "model_not_found"
    line = served.wait_for_log(CHAT, request_id="cut")
    assert (line["status"], line["error"]) == (200, "worker_died")


def test_neither_prompts_nor_keys_are_logged(served: Served) -> None:
    """At the level `debug`, through success, errors of every kind, and a client that leaves."""
    with served.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        prompt = [{"role": "user", "content": PROMPT}]
        for model in ("a", "cut", "nowhere", 7):
            for stream in (True, False):
                body = {**asking(model, stream=stream), "messages": prompt}
                client.post(f"{CHAT}?q={PROMPT}", json=body, headers={"x-request-id": f"{PROMPT} {KEY}"})
        client.post(CHAT, content=b'{"model": "a", "messages": ["' + PROMPT.encode())
        client.post(CHAT, json=asking("a"), headers={"authorization": f"Bearer {KEY}{PROMPT}"})
        client.post(CHAT, json={**asking("a"), "messages": prompt}, headers={"x-request-id": "last"})
    worker_key = the_engine(served).key
    served.wait_for_log(CHAT, request_id="last")
    whole = json.dumps(served.log)
    assert "worker_died" in whole
    for secret in (PROMPT, KEY, worker_key):
        assert secret not in whole


def test_a_client_that_left_has_a_line_too(served: Served) -> None:
    """Status 499, as nginx has it."""
    mark = len(served.log)
    with served.client(headers={"x-api-key": KEY}) as client:
        client.post(CHAT, json=asking("a"))
    connection = leave_while_waiting(served, CHAT, asking("slow"), f"X-Api-Key: {KEY}".encode())
    served.wait_for_log("worker loading", after=mark, model="slow")
    connection.close()
    line = served.wait_for_log(CHAT, after=mark, model="slow")
    assert (line["status"], line["worker"], line["first_byte_seconds"]) == (499, None, None)
    assert 0 < line["wait_seconds"] <= line["total_seconds"]
