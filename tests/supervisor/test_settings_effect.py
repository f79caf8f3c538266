"""Settings that do nothing are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.settings import Settings
from local_llm.settings_effect import without_effect, without_effect_on


def card(model_id: str, kind: Kind, engine: Engine) -> ModelCard:
    return ModelCard(model_id, Path("/m") / model_id, kind, engine, ())


CHAT = card("org/chat", Kind.CHAT, Engine.VLLM)
EMBEDDING = card("org/embed", Kind.EMBEDDING, Engine.TRANSFORMERS)
RERANKER = card("rerank", Kind.RERANKER, Engine.TRANSFORMERS)
PLAIN = card("plain", Kind.CHAT, Engine.TRANSFORMERS)
OWN = card("own", Kind.CHAT, Engine.COMMAND)
ALL = (CHAT, EMBEDDING, RERANKER, PLAIN, OWN)


def told(models: dict[str, Any], *others: str) -> list[str]:
    return without_effect(Settings.model_validate({"models": models}).models, ALL, others)


@pytest.mark.parametrize(
    ("model", "said", "why"),
    [
        (
            EMBEDDING,
            {"start": "fast"},
            "start has no effect: it is vLLM's, and org/embed runs on transformers",
        ),
        (CHAT, {"prompt": "q"}, "prompt has no effect: it is for embedding models on transformers; org/chat"),
        (
            RERANKER,
            {"prompt": "q"},
            "prompt has no effect: it is for embedding models on transformers; rerank",
        ),
        (EMBEDDING, {"gpus": 2}, "gpus has no effect: only vLLM spreads a model over GPUs, and org/embed"),
        (PLAIN, {"context": 9}, "context has no effect: its server is not told of a limit, and plain"),
        (CHAT, {"ready_path": "/"}, "ready_path has no effect: it belongs to engine: command, and org/chat"),
        (OWN, {"context": 9}, "context has no effect: its server is not told of a limit, and own runs on"),
        (OWN, {"python": "/p"}, "python has no effect: a command says that itself, and own runs on command"),
    ],
)
def test_what_an_engine_does_not_know(model: ModelCard, said: dict[str, Any], why: str) -> None:
    """With the reason, for all models and for the one."""
    (found,) = told({model.id: said})
    assert found.startswith(f"models.{model.id}.{why}")
    models = Settings.model_validate({"models": {model.id: said}}).models
    assert without_effect_on(model, models) == [found]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (CHAT, {"start": "fast", "context": 9, "dtype": "auto", "gpus": 2, "python": "/p"}),
        (EMBEDDING, {"prompt": "q", "context": 9, "dtype": "auto", "gpus": [1], "python": "/p"}),
        (EMBEDDING, {"gpus": 1}),
        (OWN, {"gpus": [1], "args": ["--x"], "env": {"A": 1}, "keep": False, "ready_path": "/"}),
    ],
)
def test_what_has_its_effect(model: ModelCard, said: dict[str, Any]) -> None:
    """Nothing is told."""
    assert told({model.id: said}) == []


def test_a_glob_is_told_of_where_none_of_its_models_knows_the_key() -> None:
    """`start` for all is for those that it is for."""
    assert told({"*": {"start": "fast", "prompt": "q"}}) == []
    (found,) = told({"*e*": {"args": ["--x"]}, "*rank": {"start": "fast"}})
    assert found == "models.*rank.start has no effect: it is vLLM's, and rerank runs on transformers"


def test_an_entry_that_matches_nothing() -> None:
    """With the name that was meant; what cannot be served is matched all the same."""
    assert told({"chat": {}, "org/chta": {}, "Qwen/*": {}, "none": {}, "broken": {}}, "broken") == [
        "models.chat has no effect: there is no model of that id; did you mean 'org/chat'?",
        "models.org/chta has no effect: there is no model of that id; did you mean 'org/chat'?",
        "models.Qwen/* has no effect: no model's id matches it",
        "models.none has no effect: there is no model of that id",
    ]
