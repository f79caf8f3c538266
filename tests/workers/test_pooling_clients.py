"""A client that leaves takes its request with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from local_llm_worker.pooling.endpoints import Endpoints
from local_llm_worker.pooling.server import App
from local_llm_worker.pooling.token_ids import TokenIds

WHOLE_BODY = {"type": "http.request", "body": b'{"model":"tiny","input":"a"}', "more_body": False}


class EndlessEngine:
    """Never answers; knows when it is asked, and what became of that."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def submit(self, _inputs: Any, _options: Any) -> asyncio.Future[Any]:
        self.asked.set()
        return self.answer


@pytest.mark.timeout(60)
async def test_client_leaves(embedding_folder: Path, load_once: Callable[[Path], Any]) -> None:
    """When the connection closes, the engine is told, and the server goes on without an error."""
    engine: Any = EndlessEngine()
    app, messages = make_app(engine, load_once(embedding_folder)[0]), [WHOLE_BODY]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await engine.asked.wait()
        return {"type": "http.disconnect"}

    assert (await asked(app, receive))["status"] == 499
    assert engine.answer.cancelled()


@pytest.mark.timeout(60)
async def test_client_leaves_in_the_middle_of_its_body(
    embedding_folder: Path, load_once: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is no failure of the worker's, and nothing is computed."""
    engine: Any = EndlessEngine()
    app, messages = make_app(engine, load_once(embedding_folder)[0]), [{**WHOLE_BODY, "more_body": True}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    assert (await asked(app, receive))["status"] == 499
    assert not engine.asked.is_set()
    assert caplog.records == []


@pytest.mark.timeout(60)
async def test_cancelled_from_outside(embedding_folder: Path, load_once: Callable[[Path], Any]) -> None:
    """A request that the server gives up, at its end, is cancelled, not answered; the engine is told."""
    engine: Any = EndlessEngine()
    app, messages = make_app(engine, load_once(embedding_folder)[0]), [WHOLE_BODY]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    request = asyncio.create_task(asked(app, receive))
    await engine.asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert engine.answer.cancelled()


def make_app(engine: Any, model: Any) -> App:
    """The application with an engine of the test's."""
    return App(
        Endpoints(model, engine, served_names=("tiny",), token_ids=TokenIds.OPENAI, max_body_bytes=1000)
    )


async def asked(app: App, receive: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Asks for an embedding; returns the first message of the answer."""
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
    await app(scope, receive, send)
    return sent[0]
