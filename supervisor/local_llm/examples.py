"""One request that shows a kind of model at work, and what its answer is in words."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import wave
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local_llm.catalog.card import Kind

_QUESTION = "What is the capital of France?"
_FEW_TOKENS = {"max_tokens": 32}


@dataclass(frozen=True, slots=True)
class Example:
    """A request.

    Attributes:
        path: of the endpoint.
        body: JSON, less the model's name.
        limits: what is added to the body where a few tokens of an answer will do.
        in_words: what an answer says, for people; raises KeyError, IndexError or TypeError for none such.
        file: for a form in place of JSON: the name and content of its file.
    """

    path: str
    body: Mapping[str, Any]
    in_words: Callable[[Any], str]
    limits: Mapping[str, Any] = field(default_factory=dict)
    file: tuple[str, bytes] | None = None


def example(kind: Kind) -> Example:
    """The request for a kind."""
    match kind:
        case Kind.CHAT:
            return Example("/v1/chat/completions", _chat(_QUESTION), _message, _FEW_TOKENS)
        case Kind.VISION_LANGUAGE:
            parts = [
                {"type": "text", "text": "What colour is this?"},
                {"type": "image_url", "image_url": {"url": red_square()}},
            ]
            return Example("/v1/chat/completions", _chat(parts), _message, _FEW_TOKENS)
        case Kind.BASE:
            prompt = {"prompt": "The capital of France is", "max_tokens": 16, "temperature": 0}
            return Example("/v1/completions", prompt, lambda answer: quoted(answer["choices"][0]["text"]))
        case Kind.EMBEDDING:
            return Example("/v1/embeddings", {"input": "The capital of France"}, _dimensions)
        case Kind.RERANKER:
            documents = ["Paris is in France.", "Cats sleep."]
            body = {"query": "capital of France", "documents": documents}
            return Example("/v1/rerank", body, lambda answer: _ranking(answer, documents))
        case Kind.CLASSIFIER:
            return Example("/v1/classify", {"input": "What a lovely day."}, _label)
        case Kind.TRANSCRIPTION:
            tone = ("tone.wav", second_of_tone())
            return Example("/v1/audio/transcriptions", {}, lambda answer: quoted(answer["text"]), file=tone)


def quoted(text: str) -> str:
    """As it is, in quotation marks, on one line."""
    return json.dumps(text, ensure_ascii=False)


def _chat(content: object) -> dict[str, Any]:
    # Not left to chance: at its usual temperature the demonstration's model says anything.
    return {"temperature": 0, "messages": [{"role": "user", "content": content}]}


def _message(answer: Any) -> str:
    message = answer["choices"][0]["message"]
    # A model that thinks may not have got further in so few tokens.
    said = message.get("content") or message.get("reasoning") or message.get("reasoning_content")
    return quoted(str(said or ""))


def _dimensions(answer: Any) -> str:
    embedding = answer["data"][0]["embedding"]
    length = math.sqrt(sum(value * value for value in embedding))
    return f"{len(embedding)} dimensions, of length {length:.2f}"


def _ranking(answer: Any, documents: list[str]) -> str:
    results = answer["results"]
    return " > ".join(f"{quoted(documents[each['index']])} {each['relevance_score']:.3f}" for each in results)


def _label(answer: Any) -> str:
    found = answer["data"][0]
    return f"{quoted(str(found['label']))}, {max(found['probs']):.3f} of {found['num_classes']} classes"


def red_square(side: int = 64) -> str:
    """A PNG as a data URL."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = (b"\0" + b"\xff\0\0" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    image += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def second_of_tone(rate: int = 16_000, hertz: float = 440.0) -> bytes:
    """A WAV file, one channel of 16 bits."""
    samples = (round(8_000 * math.sin(2 * math.pi * hertz * each / rate)) for each in range(rate))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", each) for each in samples))
    return content.getvalue()
