"""transformers' own server as a worker: what is put around it, without a model. (With one: end_to_end.)"""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from local_llm_worker.transformers_serve import ServedNames, forced_name


async def _theirs(_: Request) -> PlainTextResponse:
    return PlainTextResponse("theirs")


async def test_the_names_are_ours_and_the_rest_is_theirs() -> None:
    """Theirs would list the machine's Hugging Face cache."""
    routes = [Route("/v1/models", _theirs, methods=["POST"]), Route("/health", _theirs)]
    app = ServedNames(Starlette(routes=routes), ["org/a", "a"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        models = (await client.get("/v1/models")).json()
        assert [model["id"] for model in models["data"]] == ["org/a", "a"]
        assert (await client.get("/health")).text == "theirs"
        assert (await client.post("/v1/models")).text == "theirs"


@pytest.mark.parametrize("name", ["plain", "with@sign", "with:colon.gguf"])
def test_a_path_that_transformers_would_misread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An at sign begins a revision there, and a colon a file's name: the link has neither."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / name
    folder.mkdir()
    (folder / "m:Q4@x.gguf").write_bytes(b"weights")
    whole = forced_name(folder, None)
    assert not {"@", ":"} & set(whole)
    assert Path(whole).samefile(folder)
    of_a_file = forced_name(folder, "m:Q4@x.gguf")
    link, _, file = of_a_file.partition(":")
    assert "@" not in of_a_file
    assert (Path(link) / file).read_bytes() == b"weights"
