"""Which kinds answer which path, and how each tells an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed, WrongKind
from local_llm.gateway.endpoints import ENDPOINTS, BodyForm


def card(kind: Kind, architecture: str | None = None) -> ModelCard:
    evidence = ("config.json says so",)
    return ModelCard("m", Path("/m"), kind, Engine.VLLM, evidence=evidence, architecture=architecture)


CHAT = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
}
AUDIO = {"/v1/audio/transcriptions", "/v1/audio/translations"}
ANSWERED = {
    Kind.CHAT: CHAT | {"/v1/completions"},
    Kind.VISION_LANGUAGE: CHAT | {"/v1/completions"},
    Kind.BASE: {"/v1/completions", "/tokenize", "/detokenize"},
    Kind.EMBEDDING: {"/v1/embeddings"},
    Kind.RERANKER: {"/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"},
    Kind.CLASSIFIER: {"/v1/classify", "/classify"},
    Kind.TRANSCRIPTION: AUDIO,
}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("path", list(ENDPOINTS))
def test_each_kind_answers_its_paths_and_no_other(kind: Kind, path: str) -> None:
    """The whole table; a refusal says why, and where this model does answer."""
    if path in ANSWERED[kind]:
        ENDPOINTS[path].check(card(kind))
        return
    with pytest.raises(WrongKind, match=r"config\.json says so") as caught:
        ENDPOINTS[path].check(card(kind))
    assert all(other in caught.value.message for other in ANSWERED[kind])


@pytest.mark.parametrize(
    ("kind", "architecture", "further"),
    [
        (Kind.CHAT, "VoxtralForConditionalGeneration", AUDIO),
        (Kind.VISION_LANGUAGE, "Gemma3nForConditionalGeneration", AUDIO),
        (Kind.TRANSCRIPTION, "Qwen3ASRForConditionalGeneration", CHAT),
        (Kind.TRANSCRIPTION, "WhisperForConditionalGeneration", set()),
        (Kind.VISION_LANGUAGE, "Qwen2VLForConditionalGeneration", set()),
        (Kind.EMBEDDING, "Gemma3nForConditionalGeneration", set()),
    ],
)
def test_some_models_do_more_than_they_are_made_for(kind: Kind, architecture: str, further: set[str]) -> None:
    """What chats and transcribes does both, whichever its kind is."""
    answered = {path for path, each in ENDPOINTS.items() if each.answered_by(card(kind, architecture))}
    assert answered == ANSWERED[kind] | further


def test_a_score_asked_of_a_classifier() -> None:
    """The refusal says where a classifier does answer."""
    with pytest.raises(WrongKind, match="It answers /classify, /v1/classify"):
        ENDPOINTS["/v1/score"].check(card(Kind.CLASSIFIER))


def test_how_bodies_are_read() -> None:
    """Sounds come as forms, everything else as JSON."""
    assert {path for path, each in ENDPOINTS.items() if each.body is BodyForm.MULTIPART} == AUDIO


def test_an_error_in_a_stream_is_an_event_of_its_own() -> None:
    """It begins with a blank line, so that what broke off before it cannot swallow it."""
    event = ENDPOINTS["/v1/chat/completions"].error_event(LoadFailed("it\nfailed"))
    assert event.startswith(b"\n\ndata: {")
    assert event.endswith(b"\n\n")
    assert json.loads(event.strip().removeprefix(b"data: "))["error"]["message"] == "it\nfailed"


def test_anthropic_clients_get_their_own_error_event() -> None:
    """A plain data line made their SDK return an empty stream without an error."""
    event = ENDPOINTS["/v1/messages"].error_event(LoadFailed("it failed"))
    name, data = event.strip().split(b"\n")
    assert name == b"event: error"
    told = json.loads(data.removeprefix(b"data: "))
    assert told["type"] == "error"
    assert (told["error"]["type"], told["error"]["code"]) == ("api_error", "model_load_failed")
