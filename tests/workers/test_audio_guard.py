"""A worker that cannot read sounds says so, and lets everything else pass."""

from __future__ import annotations

import importlib.util
from typing import Any

import httpx
import pytest

from local_llm_worker.audio_guard import AudioGuard
from tests.workers.test_key_guard import application


def client(monkeypatch: pytest.MonkeyPatch, *installed: str) -> httpx.AsyncClient:
    """A client of a guarded application, where these libraries are installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in installed else None)
    guard: Any = AudioGuard(application)
    return httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://worker")


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
async def test_without_a_reader(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """501 in OpenAI's shape, with what to install."""
    answer = await client(monkeypatch).post(path, content=b"sound")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "no_audio_reader")
    assert "pip install av soundfile" in answer.json()["error"]["message"]
    assert (await client(monkeypatch).get("/health")).text == "inside"


@pytest.mark.parametrize("installed", ["av", "soundfile"])
async def test_with_a_reader(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    """Either library will do."""
    assert (await client(monkeypatch, installed).post("/v1/audio/transcriptions")).text == "inside"
