"""Nobody passes without the worker's key, on whatever path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from local_llm_worker.key_guard import KEY_VARIABLE, KeyGuard

KEY = "a key"


async def application(scope: Any, _receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    """Answers everything with 200, and remembers nothing."""
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    """A client of a guarded application."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    return httpx.AsyncClient(transport=httpx.ASGITransport(KeyGuard(application)), base_url="http://worker")


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/models", "/invocations", "/metrics", "//health", "/%2e"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
async def test_refuses_every_path(guarded: httpx.AsyncClient, path: str, method: str) -> None:
    """Without the key there is a 401, and no look inside."""
    answer = await guarded.request(method, path)

    assert answer.status_code == 401
    assert "inside" not in answer.text
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Bearer other", f"Basic {KEY}", KEY, f"bearer {KEY} "]
)
async def test_refuses_another_key(guarded: httpx.AsyncClient, given: str) -> None:
    """A wrong key is answered in OpenAI's shape."""
    answer = await guarded.get("/v1/models", headers={"authorization": given})

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_passes_with_the_key(guarded: httpx.AsyncClient) -> None:
    """The key opens every path."""
    answer = await guarded.post("/invocations", headers={"Authorization": f"Bearer {KEY}"})

    assert (answer.status_code, answer.text) == (200, "inside")


async def test_refuses_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A websocket is closed before its handshake."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    sent: asyncio.Queue[Any] = asyncio.Queue()

    await KeyGuard(application)({"type": "websocket", "headers": []}, sent.get, sent.put)

    assert sent.get_nowait() == {"type": "websocket.close", "code": 1008}


async def test_lifespan_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up and shutdown are the server's own, and need no key."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    sent: asyncio.Queue[Any] = asyncio.Queue()

    await KeyGuard(application)({"type": "lifespan"}, sent.get, sent.put)

    assert sent.get_nowait() == {"type": "lifespan.startup.complete"}


@pytest.mark.parametrize("value", [None, ""])
def test_no_key_no_guard(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """A guard without a key would be an open door that looks closed."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLE, value)

    with pytest.raises(RuntimeError, match=KEY_VARIABLE):
        KeyGuard(application)
