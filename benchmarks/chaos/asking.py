"""What the clients ask, drawn from the seed alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from benchmarks.chaos.folders import Model

MAX_BODY_BYTES = 1 << 20
"""What the server is told to accept."""


class Manner(str, Enum):
    """How a client behaves."""

    PATIENT = "patient"  # waits, and reads all
    LEAVES_EARLY = "leaves early"  # after some time, wherever the request is by then
    LEAVES_READING = "leaves while it reads"  # after some pieces of the answer
    SLOW = "reads slowly"
    RUBBISH = "sends rubbish"  # which is to be refused
    SHOUTS = "shouts"  # bytes that are no HTTP, or half a request


MANNERS: Mapping[Manner, int] = {
    Manner.PATIENT: 58,
    Manner.LEAVES_EARLY: 12,
    Manner.LEAVES_READING: 8,
    Manner.SLOW: 7,
    Manner.RUBBISH: 10,
    Manner.SHOUTS: 5,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as decided.

    Attributes:
        request_id: sent as X-Request-Id, so that the server's log can be searched for it.
        path: of the endpoint.
        body: as sent; None: a GET.
        manner: of the client.
        model: whose answer is expected; None: nobody's in particular.
        stream: an event stream is asked for.
        refused_with: statuses that a request which is rubbish must get; empty: it is none.
        seconds: until it leaves, or between two reads.
        pieces: of the answer, after which it leaves.
        count: results that a complete answer has, where that is known.
    """

    request_id: str
    path: str
    body: bytes | None
    manner: Manner = Manner.PATIENT
    model: Model | None = None
    stream: bool = False
    refused_with: tuple[int, ...] = ()
    seconds: float = 0.0
    pieces: int = 0
    count: int | None = None


def draw(chance: random.Random, request_id: str, models: Sequence[Model], *, longest: int) -> Ask:
    """A request.

    Args:
        chance: of this client.
        request_id: unique.
        models: to choose from.
        longest: text sent, in words.
    """
    manner = chance.choices(list(MANNERS), list(MANNERS.values()))[0]
    model = chance.choice(models)
    if manner is Manner.RUBBISH:
        return _rubbish(chance, request_id, model)
    if manner is Manner.SHOUTS:
        return Ask(request_id, "", _noise(chance), manner, seconds=chance.uniform(0.05, 1.5))
    if chance.random() < 0.05:
        return _errand(chance, request_id, model)
    words = max(1, int(longest ** chance.random()))
    asked = well_formed(chance, request_id, model, words)
    seconds = {
        Manner.LEAVES_EARLY: chance.expovariate(1 / 0.6),
        Manner.SLOW: chance.choice([0.01, 0.05, 0.5]),
    }.get(manner, 0.0)
    return Ask(
        request_id,
        asked.path,
        asked.body,
        manner,
        model,
        asked.stream,
        seconds=seconds,
        pieces=chance.randint(0, 4),
        count=asked.count,
    )


def well_formed(chance: random.Random, request_id: str, model: Model, words: int = 3) -> Ask:
    """A request that `model` answers, of a patient client."""
    text = "hello " * words
    name = chance.choice(model.names)
    count = None
    body: dict[str, Any]
    if model.kind == "embedding":
        count = chance.randint(1, 5)
        path, body = "/v1/embeddings", {"input": [text] * count}
    elif model.kind == "reranker":
        documents = [text] * chance.randint(1, 5)
        path = chance.choice(["/rerank", "/v1/rerank", "/v2/rerank", "/v1/score"])
        if path == "/v1/score":
            body = {"text_1": "hello", "text_2": documents}
        else:
            count, body = len(documents), {"query": "hello", "documents": documents}
    else:
        path = chance.choice(list(CHAT_BODIES))
        body = CHAT_BODIES[path](text)
    stream = path in STREAMED and chance.random() < 0.6
    body = {"model": name, **body, **({"stream": True} if stream else {})}
    return Ask(request_id, path, json.dumps(body).encode(), model=model, stream=stream, count=count)


def _chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8}


CHAT_BODIES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": lambda text: {"prompt": text, "max_tokens": 8},
    "/v1/responses": lambda text: {"input": text, "max_output_tokens": 16},
    "/v1/messages": _chat,
    "/tokenize": lambda text: {"prompt": text},
}

STREAMED = frozenset(CHAT_BODIES) - {"/tokenize"}


def _rubbish(chance: random.Random, request_id: str, model: Model) -> Ask:
    """What a client must not send; nothing of it may start a worker."""
    wrong_path = "/v1/chat/completions" if model.kind != "chat" else "/v1/embeddings"
    good = {"model": model.id, "messages": []}
    chat = "/v1/chat/completions"
    path, body, statuses = chance.choice(
        [
            (chat, b"{", (400,)),
            (chat, b"[" * 100_000, (400,)),
            (chat, b'{"model": "\xff"}', (400, 404)),
            (chat, b"{}", (400,)),
            (chat, b'{"model": 7}', (400,)),
            (chat, b'{"model": "../../../etc/passwd"}', (404,)),
            (chat, json.dumps({"model": "x" * 100_000}).encode(), (404,)),
            (chat, b" " * (MAX_BODY_BYTES + 1), (413,)),
            (chat, None, (405,)),
            ("/v1/nothing", b"{}", (404,)),
            # A faulty folder is told before a wrong kind.
            (wrong_path, json.dumps(good).encode(), (400, 404, 503)),
        ]
    )
    return Ask(request_id, path, body, Manner.RUBBISH, refused_with=statuses)


def _noise(chance: random.Random) -> bytes:
    """No HTTP, or a part of it."""
    return chance.choice(
        [
            chance.randbytes(200),
            b"GET / HTTP/9.9\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le",
            b"",
        ]
    )


def _errand(chance: random.Random, request_id: str, model: Model) -> Ask:
    """What people and dashboards ask, beside the models themselves."""
    order = json.dumps({"model": model.id}).encode()
    no_wait = json.dumps({"model": model.id, "wait": False}).encode()
    path, body, manner = chance.choice(
        [
            ("/health", None, Manner.PATIENT),
            ("/v1/models", None, Manner.PATIENT),
            (f"/v1/models/{model.id}", None, Manner.PATIENT),
            ("/admin/status", None, Manner.PATIENT),
            ("/admin/events", None, Manner.LEAVES_EARLY),
            ("/admin/rescan", b"", Manner.PATIENT),
            ("/admin/load", no_wait, Manner.PATIENT),
            ("/admin/load", order, Manner.LEAVES_EARLY),
            ("/admin/unload", order, Manner.PATIENT),
        ]
    )
    return Ask(request_id, path, body, manner, seconds=chance.expovariate(1 / 2))
