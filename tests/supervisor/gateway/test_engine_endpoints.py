"""Endpoints that a model's kind would answer, and its engine does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import WrongEngine, WrongKind
from local_llm.gateway.endpoints import ENDPOINTS


def _card(kind: Kind, engine: Engine) -> ModelCard:
    return ModelCard("m", Path("/m"), kind, engine, ("it is GGUF",))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize"])
def test_what_transformers_does_not_have(path: str) -> None:
    """Told before anything is switched, with what it has; vLLM and a command have it."""
    with pytest.raises(WrongEngine) as refused:
        ENDPOINTS[path].check(_card(Kind.CHAT, Engine.TRANSFORMERS))
    assert refused.value.message == (
        f"'m' is run by transformers (it is GGUF), whose server does not have {path}. "
        "It answers /v1/chat/completions, /v1/completions, /v1/responses."
    )
    ENDPOINTS[path].check(_card(Kind.CHAT, Engine.VLLM))
    ENDPOINTS[path].check(_card(Kind.CHAT, Engine.COMMAND))


def test_what_it_has() -> None:
    """And what the kind does not answer is told as ever; our pooling server is another one."""
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        ENDPOINTS[path].check(_card(Kind.CHAT, Engine.TRANSFORMERS))
    with pytest.raises(WrongKind, match=r"It answers /v1/completions\."):
        ENDPOINTS["/v1/chat/completions"].check(_card(Kind.BASE, Engine.TRANSFORMERS))
    ENDPOINTS["/v1/embeddings"].check(_card(Kind.EMBEDDING, Engine.TRANSFORMERS))
