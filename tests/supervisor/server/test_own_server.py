"""Engine `command`: a server of somebody's own is switched to and from like any other model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fake_engine import write_fake_model
from tests.own_server import own_server
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, health, loads, running

OWN: dict[str, Any] = {"engine": "command", "ready_path": "/ready"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A fake vLLM model, and own servers with and without a folder."""
    write_fake_model(tmp_path / "models", "org/vllm")
    weights = tmp_path / "models" / "strange" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"of no format that we know")
    models = {
        "mine": {
            **OWN,
            "command": own_server("--port", "{port}", "--name", "{id}", "--demand", "{key}"),
            "args": ["--ready-seconds", "0.3"],
            "env": {"OWN_VARIABLE": "set"},
            "aliases": ["my-own"],
        },
        "strange": {**OWN, "command": own_server("--port", "{port}", "--file", "{path}", "--in-a-child")},
        "stubborn": {
            **OWN,
            "command": own_server("--port={port}", "--deaf-to-sigterm"),
            "stop_signal": "SIGINT",
        },
        "absent": {"engine": "command", "command": ["no-such-llama-server", "{port}"]},
        "embedder": {**OWN, "kind": "embedding", "command": own_server("--port", "{port}")},
    }
    with running(tmp_path, models=models, stop={"grace_seconds": 60}) as served:
        yield served


def test_it_is_switched_to_and_from(served: Served) -> None:
    """vllm -> own -> vllm -> own of a folder: each answers itself, and its predecessor is gone."""
    with served.client() as client:
        assert client.post(CHAT, json=asking("org/vllm")).headers["x-fake-model"] == "org/vllm"
        own = client.post(CHAT, json=asking("my-own")).raise_for_status().json()
        assert own["choices"][0]["message"]["content"] == "I am my own."
        assert (own["model"], own["variable"]) == ("mine", "set")
        assert own["authorization"] == f"Bearer {own['key']}"  # ours, not the client's
        assert len(own["key"]) > 20
        assert client.post(CHAT, json=asking("org/vllm")).headers["x-fake-model"] == "org/vllm"
        assert not psutil.pid_exists(own["pid"])
        strange = client.post(CHAT, json=asking("strange")).raise_for_status().json()
        assert Path(strange["file"]).name == "strange"
    assert loads(served) == ["org/vllm", "mine", "org/vllm", "strange"]
    assert health(served)["active_model"] == "strange"


def test_its_streams_pass(served: Served) -> None:
    """Event by event, to the end."""
    with (
        served.client() as client,
        client.stream("POST", CHAT, json=asking("mine", stream=True)) as stream,
    ):
        events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    assert events[-1] == "[DONE]"
    words = [json.loads(event)["choices"][0]["delta"]["content"] for event in events[:-1]]
    assert "".join(words) == "I am my own."


def test_it_is_stopped_as_it_wants(served: Served) -> None:
    """By SIGINT: with SIGTERM, to which it is deaf, the grace of a minute would pass."""
    with served.client() as client:
        client.post(CHAT, json=asking("stubborn")).raise_for_status()
        client.post(CHAT, json=asking("org/vllm")).raise_for_status()
    served.wait_for_log("ended by SIGINT")


def test_a_program_that_is_not_there(served: Served) -> None:
    """The error names it, and is no riddle."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking("absent"))
    assert answer.status_code == 503
    message = answer.json()["error"]["message"]
    assert "no-such-llama-server" in message
    assert "No such file or directory" in message


def test_what_is_known_of_it(served: Served) -> None:
    """It is listed with kind and engine, and its kind decides which endpoints it answers."""
    with served.client() as client:
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        refused = client.post(CHAT, json=asking("embedder"))
    assert set(models) == {"org/vllm", "mine", "strange", "stubborn", "absent", "embedder"}
    assert (models["mine"]["kind"], models["mine"]["engine"]) == ("chat", "command")
    assert models["embedder"]["kind"] == "embedding"
    assert refused.json()["error"]["code"] == "wrong_model_kind"
