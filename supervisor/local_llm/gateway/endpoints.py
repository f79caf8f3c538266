"""The paths that go to workers: what kinds of model answer them, and how they tell an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from local_llm.catalog import architectures
from local_llm.catalog.card import CHATS, WRITES_TEXT, Engine, Kind, ModelCard
from local_llm.errors import ServiceError, WrongEngine, WrongKind

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
"""What Anthropic calls an error of a status; of any other: api_error."""


GENERATIVE_KINDS = WRITES_TEXT | {Kind.TRANSCRIPTION}
"""One model of these may do what another of them is for; an embedding model of the same class does not."""


TRANSFORMERS_SERVES = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})
"""What transformers' own `serve` answers of the endpoints for models that write text."""


class BodyForm(Enum):
    """How a request's body says which model it is for."""

    JSON = "application/json"
    MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path.

    Attributes:
        path: as clients call it, and as the worker has it.
        kinds: of the models that answer it.
        does: what a model does here, to complete "does not ...".
        streams: a request may ask for an event stream here.
        anthropic: errors are told as Anthropic's SDK expects them, OpenAI's fields included.
        body: of its requests.
        architectures: that answer it as well, whatever their kind.
    """

    path: str
    kinds: frozenset[Kind]
    does: str
    streams: bool = False
    anthropic: bool = False
    body: BodyForm = BodyForm.JSON
    architectures: frozenset[str] = frozenset()

    def answered_by(self, card: ModelCard) -> bool:
        """Whether the model is for this endpoint, and its engine has it."""
        return self._is_for(card) and self._engine_has_it(card)

    def _is_for(self, card: ModelCard) -> bool:
        return card.kind in self.kinds or (
            card.kind in GENERATIVE_KINDS and card.architecture in self.architectures
        )

    def _engine_has_it(self, card: ModelCard) -> bool:
        """vLLM and our pooling server have all that is theirs; an own server may have anything."""
        writes = card.engine is Engine.TRANSFORMERS and card.kind in GENERATIVE_KINDS
        return not writes or self.path in TRANSFORMERS_SERVES

    def check(self, card: ModelCard) -> None:
        """Before anything is switched.

        Raises:
            WrongKind: the model is not for this endpoint.
            WrongEngine: its engine does not have it.
        """
        if self.answered_by(card):
            return
        fitting = sorted(path for path, each in ENDPOINTS.items() if each.answered_by(card))
        instead = f"It answers {', '.join(fitting)}." if fitting else ""
        if self._is_for(card):
            message = (
                f"{card.id!r} is run by transformers ({'; '.join(card.evidence)}), whose server does not "
                f"have {self.path}. {instead}"
            )
            raise WrongEngine(message.rstrip(), param="model")
        wanted = " or ".join(sorted(kind.value for kind in self.kinds))
        message = (
            f"{card.id!r} does not {self.does}: it is of kind {card.kind.value} "
            f"({'; '.join(card.evidence)}), and {self.path} needs kind {wanted}. {instead}"
        )
        raise WrongKind(message.rstrip(), param="model")

    def error_body(self, error: ServiceError) -> bytes:
        """The body of an error answer."""
        body = error.body()
        if self.anthropic:
            body = {"type": "error", "error": {**body["error"], "type": _anthropic_type(error)}}
        return json.dumps(body, ensure_ascii=False).encode()

    def error_event(self, error: ServiceError) -> bytes:
        """The same within an event stream that has begun.

        A plain `data:` line made Anthropic's SDK return an empty stream without an error, so /v1/messages
        has its named event. The leading blank line ends an event that broke off in its middle.
        """
        name = b"event: error\n" if self.anthropic else b""
        return b"\n\n" + name + b"data: " + self.error_body(error) + b"\n\n"


def _anthropic_type(error: ServiceError) -> str:
    return ANTHROPIC_TYPES.get(error.status, "api_error")


def _endpoints() -> dict[str, Endpoint]:
    endpoints = [*_language(), *_pooling(), *_audio()]
    return {endpoint.path: endpoint for endpoint in endpoints}


def _language() -> list[Endpoint]:
    chat, language, too = CHATS, WRITES_TEXT, architectures.CHAT_TOO
    return [
        Endpoint("/v1/chat/completions", chat, "chat", streams=True, architectures=too),
        Endpoint("/v1/completions", language, "complete text", streams=True),
        Endpoint("/v1/responses", chat, "chat", streams=True, architectures=too),
        Endpoint("/v1/messages", chat, "chat", streams=True, anthropic=True, architectures=too),
        Endpoint(
            "/v1/messages/count_tokens", chat, "count the tokens of a chat", anthropic=True, architectures=too
        ),
        Endpoint("/tokenize", language, "tokenize", architectures=too),
        Endpoint("/detokenize", language, "detokenize", architectures=too),
    ]


def _pooling() -> list[Endpoint]:
    reranker, classifier = frozenset({Kind.RERANKER}), frozenset({Kind.CLASSIFIER})
    return [
        Endpoint("/v1/embeddings", frozenset({Kind.EMBEDDING}), "embed"),
        *(Endpoint(path, reranker, "rerank") for path in ("/v1/rerank", "/rerank", "/v2/rerank")),
        *(Endpoint(path, reranker, "score pairs") for path in ("/v1/score", "/score")),
        *(Endpoint(path, classifier, "classify") for path in ("/v1/classify", "/classify")),
    ]


def _audio() -> list[Endpoint]:
    return [
        Endpoint(
            f"/v1/audio/{what}s",
            frozenset({Kind.TRANSCRIPTION}),
            f"make {what}s of speech",
            streams=True,
            body=BodyForm.MULTIPART,
            architectures=architectures.TRANSCRIBE_TOO,
        )
        for what in ("transcription", "translation")
    ]


ENDPOINTS = _endpoints()
