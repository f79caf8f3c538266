"""What clients get: OpenAI's, vLLM's, Jina's and Cohere's shapes."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from local_llm_worker.pooling.inputs import Pair

Rows = npt.NDArray[np.float32]


def embeddings(model: str, vectors: Rows, tokens: int, *, as_base64: bool) -> dict[str, Any]:
    """OpenAI's answer.

    Args:
        model: the name the client asked for.
        vectors: one a text.
        tokens: of all texts.
        as_base64: little-endian float32, as OpenAI's Python client asks for; else lists of numbers.
    """
    encoded: Sequence[Any] = [_as_base64(row) for row in vectors] if as_base64 else vectors.tolist()
    data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(encoded)]
    return {**_head("embd", model), "data": data, "usage": _usage(tokens)}


def cut(vectors: Rows, dimensions: int) -> Rows:
    """The first `dimensions` of each vector, brought to length 1 again."""
    shorter = vectors[:, :dimensions]
    lengths = np.linalg.norm(shorter, axis=1, keepdims=True)
    return np.asarray(shorter / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def ranking(
    model: str,
    pairs: Sequence[Pair],
    scores: Sequence[float],
    tokens: int,
    *,
    top_n: int,
    with_documents: bool,
) -> dict[str, Any]:
    """The superset that Jina's, Cohere's and vLLM's clients read, best first.

    Args:
        model: the name the client asked for.
        pairs: query and document.
        scores: one a pair.
        tokens: of all pairs.
        top_n: results at most; 0 for all.
        with_documents: whether each result repeats its document.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]} for index in order[: top_n or None]
    ]
    if with_documents:
        for each in results:
            each["document"] = {"text": pairs[each["index"]][1]}
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return {**_head("rerank", model), "results": results, "usage": _usage(tokens), "meta": meta}


def scores(model: str, values: Sequence[float], tokens: int) -> dict[str, Any]:
    """vLLM's answer, in the order of the input."""
    data = [{"object": "score", "index": index, "score": each} for index, each in enumerate(values)]
    return {**_head("score", model), "data": data, "usage": _usage(tokens)}


def classifications(
    model: str, labels: Sequence[str | None], probabilities: Rows, tokens: int
) -> dict[str, Any]:
    """vLLM's answer.

    Args:
        model: the name the client asked for.
        labels: of the columns.
        probabilities: one row an input.
        tokens: of all inputs.
    """
    data = [
        {
            "index": index,
            "label": labels[int(row.argmax())],
            "probs": row.tolist(),
            "num_classes": len(labels),
        }
        for index, row in enumerate(probabilities)
    ]
    return {**_head("classify", model), "data": data, "usage": _usage(tokens)}


def models(served_names: Sequence[str], created: int, max_length: int) -> dict[str, Any]:
    """`GET /v1/models`: every name that this worker answers to."""
    data = [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "local-llm",
            "max_model_len": max_length,
        }
        for name in served_names
    ]
    return {"object": "list", "data": data}


def _head(prefix: str, model: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{random.getrandbits(128):032x}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
    }


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}


def _as_base64(row: Rows) -> str:
    return base64.b64encode(np.ascontiguousarray(row, dtype="<f4").tobytes()).decode("ascii")
