"""Backpressure: how large, how many, how long; and that the client really reads what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest

from tests.fake_engine import fake_python, write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import (
    CHAT,
    asking,
    connect,
    health,
    leave_while_waiting,
    read_answer,
    request_bytes,
    running,
    until,
)

MAX_BODY = 100_000
MAX_WAITING = 250_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("limits")
    write_fake_model(folder / "models", "a")
    write_fake_model(folder / "models", "slow", slow_start=600)
    with running(
        folder,
        max_body_bytes=MAX_BODY,
        max_waiting_body_bytes=MAX_WAITING,
        queue={"max_waiting": 3, "max_wait_seconds": 600},
    ) as served:
        yield served


def padded(model: str, size: int) -> bytes:
    """A body of exactly so many bytes."""
    body = json.dumps({"model": model, "x": ""}).encode()
    return body[:-2] + b"y" * (size - len(body)) + body[-2:]


def test_the_largest_body_there_may_be(served: Served) -> None:
    """To the byte, declared and chunked."""
    body = padded("a", MAX_BODY)
    with served.client() as client:
        assert client.post(CHAT, content=body).status_code == 200
        assert client.post(CHAT, content=iter([body[:50], body[50:]])).status_code == 200


@pytest.mark.parametrize("size", [MAX_BODY + 1, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_that_is_too_large(served: Served, size: int, chunked: bool) -> None:
    """413; the client reads it, though it is still sending, and is served on the same connection after."""
    body = padded("a", size)
    with served.client() as client:
        answer = client.post(CHAT, content=iter([body[:60_000], body[60_000:]]) if chunked else body)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert str(MAX_BODY) in answer.json()["error"]["message"]
        assert client.post(CHAT, json=asking("a")).status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_client_that_sends_everything_before_it_reads(served: Served, chunked: bool) -> None:
    """The answer is not lost in a reset of the connection."""
    body = padded("a", 8_000_000)
    if chunked:
        pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        request = request_bytes(CHAT, pieces, b"Transfer-Encoding: chunked")
    else:
        request = request_bytes(CHAT, body)
    with connect(served) as connection:
        connection.sendall(request)
        assert read_answer(connection).status == 413


def test_a_client_that_waits_for_the_go_ahead_sends_nothing(served: Served) -> None:
    """A declared size that is too large is told at once."""
    with connect(served) as connection:
        connection.sendall(
            request_bytes(CHAT, b"", b"Expect: 100-continue", b"Content-Length: 999999999999").replace(
                b"\r\nContent-Length: 0", b""
            )
        )
        assert read_answer(connection).status == 413


def test_a_body_that_never_comes_costs_no_worker(served: Served) -> None:
    """A client that leaves in the middle of its body is forgotten, and its bytes are given back."""
    for _ in range(5):
        with connect(served) as connection:
            whole = request_bytes(CHAT, padded("a", MAX_BODY))
            connection.sendall(whole[:2000])
    with served.client() as client:
        until(lambda: client.post(CHAT, content=padded("a", MAX_BODY)).status_code == 200)


def test_what_all_waiting_bodies_may_hold(served: Served) -> None:
    """429 with Retry-After beyond it; what leaves makes room again."""
    body = json.loads(padded("slow", MAX_BODY))
    waiting = [leave_while_waiting(served, CHAT, body) for _ in range(2)]
    try:
        until(lambda: health(served)["waiting"] == {"slow": 2})
        with served.client() as client:
            answer = client.post(CHAT, content=padded("slow", MAX_BODY))
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert "max_waiting_body_bytes" in answer.json()["error"]["message"]
            waiting.pop().close()
            until(lambda: health(served)["waiting"] == {"slow": 1})
            assert client.post(CHAT, content=padded("nowhere", MAX_BODY)).status_code == 404
    finally:
        for connection in waiting:
            connection.close()


def test_as_many_wait_as_may(served: Served) -> None:
    """The next one gets 429 with Retry-After, as both SDKs expect it; a model that serves is not meant."""
    waiting = [leave_while_waiting(served, CHAT, asking("slow")) for _ in range(3)]
    try:
        until(lambda: health(served)["waiting"] == {"slow": 3})
        with served.client() as client:
            answer = client.post(CHAT, json=asking("slow"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        with (
            openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as client_of_openai,
            pytest.raises(openai.RateLimitError),
        ):
            client_of_openai.chat.completions.create(model="slow", messages=[{"role": "user", "content": ""}])
        with (
            anthropic.Anthropic(base_url=served.url, api_key="x", max_retries=0) as client_of_anthropic,
            pytest.raises(anthropic.RateLimitError),
        ):
            client_of_anthropic.messages.create(
                model="slow", max_tokens=5, messages=[{"role": "user", "content": "x"}]
            )
    finally:
        for connection in waiting:
            connection.close()
    until(lambda: health(served)["waiting"] == {})
    with served.client() as client:
        assert client.post(CHAT, json=asking("a")).status_code == 200


def test_a_wait_that_is_too_long(tmp_path_factory: pytest.TempPathFactory) -> None:
    """503 after `max_wait_seconds`; the load goes on for those who come later."""
    folder = tmp_path_factory.mktemp("too_long")
    write_fake_model(folder / "models", "slow", slow_start=2.5)
    with running(folder, queue={"max_wait_seconds": 0.5}) as served, served.client() as client:
        answer = client.post(CHAT, json=asking("slow"))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "waited_too_long"
        assert "max_wait_seconds" in answer.json()["error"]["message"]
        served.wait_for_log("worker ready", model="slow")
        assert client.post(CHAT, json=asking("slow")).headers["x-fake-model"] == "slow"


def test_a_workers_own_limit(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`max_concurrent` requests run at a time, the others wait; all are answered."""
    folder = tmp_path_factory.mktemp("concurrent")
    write_fake_model(folder / "models", "a", answer_seconds=0.3)
    answers: list[int] = []
    engines = {"vllm": {"python": str(fake_python(folder)), "warm": "off", "max_concurrent": 2}}
    with running(folder, engines=engines) as served:
        url = served.url + CHAT
        threads = [
            threading.Thread(
                target=lambda: answers.append(httpx.post(url, json=asking("a"), timeout=60).status_code)
            )
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        most = 0

        def all_done() -> bool:
            nonlocal most
            most = max([most, *(each["requests"] for each in health(served)["workers"])])
            return len(answers) == 6

        until(all_done)
        for thread in threads:
            thread.join()
    assert answers == [200] * 6
    assert most == 2
