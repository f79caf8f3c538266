"""One server's switches: from a request for the other model to the first token, or vector, of its answer."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.serving import Served, serving

CHATS = ("SmolLM2-135M-Instruct", "SmolLM2-the-other")
EMBEDDERS = ("all-MiniLM-L6-v2", "MiniLM-the-other")
CAPITAL = "The capital of France is Paris."

# What no way of starting vLLM can save: lines of its own log.
_UNAVOIDABLE = (
    re.compile(r"Initializing model took ([\d.]+) s"),
    re.compile(r"Loading weights took ([\d.]+) s"),
    re.compile(r"init engine .*took ([\d.]+) s"),
)


@dataclass(slots=True)
class Seconds:
    """What was measured of one server, each as often as it was done.

    Attributes:
        chat: from one chat model to another, both of vLLM.
        limit: of each of those: model initialisation, weights and engine initialisation.
        embedding: from a chat model to an embedding model.
        embedders: from one embedding model to another.
        tokens: a second, of one answer of 100 tokens after the switch.
        first: from the server's start, or its template's being ready, to the first token of all.
    """

    chat: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)
    embedding: list[float] = field(default_factory=list)
    embedders: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


def measure(models: Path, warm: str, seconds: Seconds) -> None:
    """One server: the first chat model, the other one, an embedding model, the other one, and back.

    Args:
        models: the demonstration models.
        warm: `on` or `off`.
        seconds: added to.
    """
    engines = {name: {"warm": warm} for name in ("vllm", "transformers")}
    with (
        _two_of_each(models) as folder,
        TemporaryDirectory() as own,
        serving(folder, Path(own), {"engines": engines}) as served,
    ):
        seconds.first.append(_chat(served, CHATS[0]))
        if warm == "on":
            for engine in engines:
                served.wait_for_log("warm template ready", 120, engine=engine)
        for model in (CHATS[1], CHATS[0]):
            seen = len(served.log)
            seconds.chat.append(_chat(served, model))
            seconds.limit.append(_unavoidable(served, seen))
            seconds.tokens.append(_tokens_a_second(served, model))
        seconds.embedding.append(_embed(served, EMBEDDERS[0]))
        seconds.embedders.append(_embed(served, EMBEDDERS[1]))
        seconds.embedders.append(_embed(served, EMBEDDERS[0]))


@contextmanager
def _two_of_each(models: Path) -> Iterator[Path]:
    """The same files under two names each, all in the page cache."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for pair in (CHATS, EMBEDDERS):
            for each in pair:
                (folder / each).symlink_to((models / pair[0]).absolute())
            for file in (models / pair[0]).rglob("*.safetensors"):
                file.read_bytes()
        yield folder


def _chat(served: Served, model: str) -> float:
    """Seconds to the first token; the whole answer must be right."""
    text, first = "", 0.0
    began = time.monotonic()
    with served.client() as client, client.stream("POST", "/v1/chat/completions", json=_ask(model)) as answer:
        for line in answer.iter_lines():
            piece = _piece(line)
            if piece and not first:
                first = time.monotonic() - began
            text += piece
    assert text == CAPITAL, text
    return first


def _ask(model: str, **more: Any) -> Mapping[str, Any]:
    question = {"role": "user", "content": "What is the capital of France?"}
    return {"model": model, "messages": [question], "temperature": 0, "stream": True, **more}


def _piece(line: str) -> str:
    found = re.search(r'"content":"((?:[^"\\]|\\.)*)"', line)
    return found[1] if found else ""


def _tokens_a_second(served: Served, model: str) -> float:
    ask = _ask(model, stream=False, max_tokens=100, ignore_eos=True)
    with served.client() as client:
        began = time.monotonic()
        usage = client.post("/v1/chat/completions", json=ask).raise_for_status().json()["usage"]
    return int(usage["completion_tokens"]) / (time.monotonic() - began)


def _unavoidable(served: Served, seen: int) -> float:
    found = [
        float(match[1])
        for entry in served.log[seen:]
        for pattern in _UNAVOIDABLE
        if (match := pattern.search(entry["message"]))
    ]
    assert len(found) == len(_UNAVOIDABLE), found
    return sum(found)


def _embed(served: Served, model: str) -> float:
    began = time.monotonic()
    with served.client() as client:
        answer = client.post("/v1/embeddings", json={"model": model, "input": "The capital of France"})
    assert len(answer.raise_for_status().json()["data"][0]["embedding"]) == 384
    return time.monotonic() - began
