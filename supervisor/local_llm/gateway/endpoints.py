"""The paths that go to workers: what kinds of model answer them, and how they tell an error."""

from __future__ import annotations

import json
from dataclasses import dataclass

from local_llm.catalog.card import Kind, ModelCard
from local_llm.errors import ServiceError, WrongKind

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
"""What Anthropic calls an error of a status; of any other: api_error."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path.

    Attributes:
        path: as clients call it, and as the worker has it.
        kinds: of the models that answer it.
        does: what a model does here, to complete "does not ...".
        streams: a request may ask for an event stream here.
        anthropic: errors are told as Anthropic's SDK expects them, OpenAI's fields included.
    """

    path: str
    kinds: frozenset[Kind]
    does: str
    streams: bool = False
    anthropic: bool = False

    def check(self, card: ModelCard) -> None:
        """Before anything is switched.

        Raises:
            WrongKind: the model is not for this endpoint.
        """
        if card.kind in self.kinds:
            return
        wanted = " or ".join(sorted(kind.value for kind in self.kinds))
        fitting = sorted(path for path, each in ENDPOINTS.items() if card.kind in each.kinds)
        instead = f"It answers {', '.join(fitting)}." if fitting else ""
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
    chat, language = frozenset({Kind.CHAT}), frozenset({Kind.CHAT, Kind.BASE})
    reranker = frozenset({Kind.RERANKER})
    endpoints = [
        Endpoint("/v1/chat/completions", chat, "chat", streams=True),
        Endpoint("/v1/completions", language, "complete text", streams=True),
        Endpoint("/v1/responses", chat, "chat", streams=True),
        Endpoint("/v1/messages", chat, "chat", streams=True, anthropic=True),
        Endpoint("/v1/messages/count_tokens", chat, "count the tokens of a chat", anthropic=True),
        Endpoint("/tokenize", language, "tokenize"),
        Endpoint("/detokenize", language, "detokenize"),
        Endpoint("/v1/embeddings", frozenset({Kind.EMBEDDING}), "embed"),
        *(Endpoint(path, reranker, "rerank") for path in ("/v1/rerank", "/rerank", "/v2/rerank")),
        *(Endpoint(path, reranker, "score pairs") for path in ("/v1/score", "/score")),
    ]
    return {endpoint.path: endpoint for endpoint in endpoints}


ENDPOINTS = _endpoints()
