"""Calls the service from another container with langchain-openai: `docker compose run --rm client`.

Takes the first model of each kind that the service has, asks, embeds, reranks, asks again, and streams.
Each change of the model's kind is a switch of the model that is loaded; the client only names it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import OpenAI

QUESTION = "What is the capital of France?"
SENTENCES = ["Cats sleep most of the day.", "Paris is the capital of France.", "Bread is made of flour."]
TIMEOUT_SECONDS = 600.0


def main() -> None:
    """Tells the story, a line a step; a failure is a traceback and exit code 1."""
    url, key = os.environ["OPENAI_BASE_URL"], _api_key()
    models = _models(url, key)
    _say("models", ", ".join(f"{name} ({kind})" for name, kind in models.items()))
    by_kind = {kind: name for name, kind in reversed(models.items())}
    # What follows the service's own message is Any: ChatOpenAI's options are keyword arguments.
    access: dict[str, Any] = {"base_url": url, "api_key": key, "timeout": TIMEOUT_SECONDS, "max_retries": 0}
    chat = ChatOpenAI(model=by_kind["chat"], temperature=0, max_completion_tokens=32, **access)
    # Without this option LangChain first downloads OpenAI's vocabulary.
    embeddings = OpenAIEmbeddings(model=by_kind["embedding"], check_embedding_ctx_length=False, **access)

    _say("chat", str(chat.invoke(QUESTION).content))
    nearest = _nearest(embeddings.embed_query(QUESTION), embeddings.embed_documents(SENTENCES))
    _say("embedding", SENTENCES[nearest])
    _say("rerank", SENTENCES[_best(url, key, by_kind["reranker"])])
    _say("chat again", str(chat.invoke(QUESTION).content))
    pieces = [str(piece.content) for piece in chat.stream(QUESTION)]
    _say("stream", f"{''.join(pieces)} ({len([piece for piece in pieces if piece])} pieces)")


def _api_key() -> str:
    """The first key of the secret file; without keys the service takes any."""
    path = os.environ.get("API_KEY_FILE")
    return Path(path).read_text().split()[0] if path else "unused"


def _models(url: str, key: str) -> dict[str, str]:
    """Kind by name."""
    with OpenAI(base_url=url, api_key=key) as client:
        return {model.id: str(model.model_dump().get("kind")) for model in client.models.list()}


def _best(url: str, key: str, reranker: str) -> int:
    """The sentence that answers the question best; LangChain has no client for this of its own."""
    answer = httpx.post(
        f"{url}/rerank",
        json={"model": reranker, "query": QUESTION, "documents": SENTENCES},
        headers={"Authorization": f"Bearer {key}"},
        timeout=TIMEOUT_SECONDS,
    )
    answer.raise_for_status()
    return int(answer.json()["results"][0]["index"])


def _nearest(query: list[float], documents: list[list[float]]) -> int:
    """The document with the largest scalar product: the vectors are normalised."""
    products = [sum(a * b for a, b in zip(query, each, strict=True)) for each in documents]
    return products.index(max(products))


def _say(step: str, result: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {step}: {result}", flush=True)


if __name__ == "__main__":
    main()
