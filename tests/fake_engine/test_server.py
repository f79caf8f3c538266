"""The fake engine keeps its promises, so that other tests may rely on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from local_llm.worker.launcher import Launcher
from tests.supervisor.worker.stage import fake_card, fake_settings


@asynccontextmanager
async def fake_engine(tmp_path: Path, **flags: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client, with the key, of a ready fake engine."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, **flags))
        await worker.start()
        headers = {"authorization": f"Bearer {worker.key}"}
        async with httpx.AsyncClient(
            base_url=worker.base_url, headers=headers, trust_env=False, timeout=30
        ) as client:
            yield client


async def test_tells_what_it_received(tmp_path: Path) -> None:
    """Body and headers can be compared with what was sent; connections are kept; chunked bodies too."""
    body = b'{"model": "org/a",  "odd spacing" :1}'

    async def in_chunks() -> AsyncIterator[bytes]:
        yield body[:10]
        yield body[10:]

    async with fake_engine(tmp_path) as client:
        for content in (body, in_chunks()):
            answer = await client.post("/v1/chat/completions", content=content, headers={"x-odd": "1"})
            assert answer.json()["choices"][0]["message"]["content"] == "I am org/a"
            assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()
            assert "x-odd" in answer.headers["x-fake-headers"].split(",")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/completions", "choices"),
        ("/v1/responses", "output"),
        ("/v1/messages", "content"),
        ("/v1/messages/count_tokens", "input_tokens"),
        ("/tokenize", "tokens"),
        ("/detokenize", "prompt"),
        ("/v1/embeddings", "data"),
        ("/rerank", "results"),
        ("/score", "data"),
    ],
)
async def test_answers(tmp_path: Path, path: str, field: str) -> None:
    """Every endpoint answers in its own shape."""
    async with fake_engine(tmp_path) as client:
        assert field in (await client.post(path, json={"documents": ["a"]})).json()


async def test_streams(tmp_path: Path) -> None:
    """As many chunks as told, then [DONE]; counted by /metrics."""
    async with fake_engine(tmp_path, chunks=3) as client:
        answer = await client.post("/v1/chat/completions", json={"stream": True})
        *chunks, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        tokens = [json.loads(chunk)["choices"][0]["delta"]["content"] for chunk in chunks]
        assert (tokens, done) == (["token0 ", "token1 ", "token2 "], "[DONE]")
        assert (await client.get("/metrics")).text.endswith("generation_tokens_total 3\n")


async def test_stops_for_a_client_that_left(tmp_path: Path) -> None:
    """Nothing runs and nothing is counted any more."""
    async with fake_engine(tmp_path, chunks=1_000_000, chunk_seconds=0.01) as client:
        async with client.stream("POST", "/v1/completions", json={"stream": True}) as answer:
            chunks = answer.aiter_raw()  # kept: httpx closes the response when the iterator is dropped
            await anext(chunks)
            assert "running 1\n" in (await client.get("/metrics")).text
        with anyio.fail_after(30):
            while "running 0\n" not in (metrics := (await client.get("/metrics")).text):
                pass
        assert (await client.get("/metrics")).text == metrics


async def test_dies_mid_stream(tmp_path: Path) -> None:
    """The connection breaks after the chunks that were told."""
    received: list[bytes] = []

    async def read(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/messages", json={"stream": True}) as answer:
            async for chunk in answer.aiter_raw():
                received.append(chunk)  # noqa: PERF401 - what came before the end is wanted too

    async with fake_engine(tmp_path, die_mid_stream=2) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client)
    assert b"".join(received).count(b"content_block_delta\ndata") == 2
