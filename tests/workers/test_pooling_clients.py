"""A client that leaves takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local_llm_worker.pooling.endpoints import Endpoints
from local_llm_worker.pooling.server import create_app
from local_llm_worker.pooling.token_ids import TokenIds


class EndlessEngine:
    """Never answers; knows when it is asked, and when it is no longer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.given_up = False

    async def run(self, _inputs: Any, _options: Any) -> Any:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise


@pytest.mark.timeout(60)
async def test_client_leaves(embedding_folder: Path, load_once: Callable[[Path], Any]) -> None:
    """When the connection closes, the engine is told, and the server goes on without an error."""
    engine: Any = EndlessEngine()
    model, _ = load_once(embedding_folder)
    endpoints = Endpoints(
        model, engine, served_names=("tiny",), token_ids=TokenIds.OPENAI, max_body_bytes=1000
    )
    left = False

    async def receive() -> dict[str, Any]:
        nonlocal left
        if left:
            await engine.asked.wait()
            return {"type": "http.disconnect"}
        left = True
        return {"type": "http.request", "body": b'{"model":"tiny","input":"a"}', "more_body": False}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    await create_app(endpoints)(scope, receive, send)

    assert engine.given_up
    assert sent[0]["status"] == 499
