"""One real server with real engines for all stories; starting vLLM takes half a minute on two cores."""

from __future__ import annotations

import base64
import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Served, serving
from tests.tiny_models import write_tiny_chat_model

MODELS = Path(__file__).parents[2] / "models"
TINY = "tiny-qwen3"
CL100K_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration models (`make models`) and a second chat model of another architecture."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "MiniLM-reranker-demo"):
        assert (MODELS / name / "config.json").exists(), f"models/{name} is missing: run `make models`"
        (folder / name).symlink_to(MODELS / name)
    write_tiny_chat_model(folder / TINY)
    return folder


@pytest.fixture(scope="session")
def served(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, with all defaults and no key."""
    with serving(models_dir, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def tiktoken_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenAI's vocabulary where tiktoken looks for it, so that LangChain's client needs no download."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "open_binary is deprecated", DeprecationWarning)
        import bpe_openai

    encoding = bpe_openai.get_encoding("cl100k_base")
    lines = [
        base64.b64encode(encoding.decode_single_token_bytes(rank)) + b" " + str(rank).encode() + b"\n"
        for rank in range(100_256)
    ]
    folder = tmp_path_factory.mktemp("tiktoken")
    (folder / hashlib.sha1(CL100K_URL.encode()).hexdigest()).write_bytes(b"".join(lines))
    return folder
