"""Streams that wait: comments meanwhile, and every failure after them as an event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, running

SLOW = {"slow_start": 1.0}
MODELS: dict[str, dict[str, Any]] = {
    "fine": {},
    "slow": SLOW,
    "slow_and_refuses": {**SLOW, "status": 400},
    "slow_and_dies": {**SLOW, "die_mid_stream": 0},
    "dies": {"die_at_start": 3},
    "never_ready": {"never_ready": True},
}
MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("feedback")
    for name, flags in MODELS.items():
        write_fake_model(folder / "models", name, **flags)
    load = {"stream_feedback_after_seconds": 0.2, "max_seconds": 3}
    with running(folder, load=load) as served:
        yield served


def streamed(served: Served, model: str, path: str = CHAT) -> tuple[int, list[str]]:
    """The status and the non-empty lines of a stream."""
    asked = {"model": model, "stream": True, "messages": MESSAGES}
    with served.client() as client, client.stream("POST", path, json=asked) as stream:
        return stream.status_code, [line for line in stream.iter_lines() if line]


def test_a_waiting_stream_hears_what_it_waits_for(served: Served) -> None:
    """Comments first, then the worker's own events, unchanged."""
    status, lines = streamed(served, "slow")
    assert status == 200
    assert lines[0].startswith(": loading slow")
    events = [line for line in lines if not line.startswith(":")]
    assert lines[-len(events) :] == events
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[0].removeprefix("data: "))["model"] == "slow"


def test_a_stream_that_need_not_wait_hears_nothing(served: Served) -> None:
    """The second request finds the model loaded: the worker's bytes only."""
    streamed(served, "fine")
    _, lines = streamed(served, "fine")
    assert not any(line.startswith(":") for line in lines)


def test_who_asked_for_no_stream_gets_none(served: Served) -> None:
    """A plain answer waits in silence, with the worker's own headers."""
    streamed(served, "fine")
    with served.client() as client:
        answer = client.post(CHAT, json={"model": "slow", "messages": MESSAGES})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["model"] == "slow"


def test_a_refusal_after_comments_is_an_event(served: Served) -> None:
    """The worker's 400 has lost its status line; its error object is told all the same."""
    status, lines = streamed(served, "slow_and_refuses")
    assert status == 200
    assert lines[0].startswith(":")
    assert "message" in json.loads(lines[-1].removeprefix("data: "))["error"]


def test_a_load_that_fails_after_comments_is_an_event(served: Served) -> None:
    """503 is no longer possible; the reason still is."""
    status, lines = streamed(served, "never_ready")
    assert status == 200
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert error["code"] == "model_load_failed"
    assert "never_ready" in error["message"]


def test_a_failure_before_any_comment_is_a_plain_error(served: Served) -> None:
    """Nothing was sent yet, so the client gets a status it can act on."""
    with served.client() as client:
        assert client.post(CHAT, json={"model": "dies", "messages": MESSAGES}).status_code == 503
    status, lines = streamed(served, "dies")  # it cools down, and is refused at once
    assert status == 503
    assert json.loads("".join(lines))["error"]["code"] == "model_load_failed"


def test_the_openai_client_passes_over_comments_and_sees_the_error(served: Served) -> None:
    """Through the real SDK: text after comments; an exception where the load failed."""
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0)
    streamed(served, "fine")
    stream = client.chat.completions.create(model="slow", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    streamed(served, "fine")
    stream = client.chat.completions.create(model="slow_and_refuses", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_the_anthropic_client_sees_the_error(served: Served) -> None:
    """A plain data line made it return an empty stream; the named event raises."""
    streamed(served, "fine")
    client = anthropic.Anthropic(base_url=served.url, api_key="unused", max_retries=0)
    stream = client.messages.create(model="slow_and_refuses", messages=MESSAGES, max_tokens=5, stream=True)
    with pytest.raises(anthropic.APIStatusError):
        list(stream)
