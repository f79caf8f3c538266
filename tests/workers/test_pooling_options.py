"""What the command line says of a model's prompt and its longest input."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from local_llm_worker.pooling.embedding import EmbeddingModel
from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Kind
from local_llm_worker.pooling.inputs import TokenizeOptions
from local_llm_worker.pooling.loading import LoadOptions, load
from local_llm_worker.pooling.program import parse_arguments
from tests.workers.conftest import MAX_TOKENS


def loaded(folder: Path, *, prompt: str | None = None, max_length: int | None = None) -> EmbeddingModel:
    """The tiny embedding model, with these options."""
    options = LoadOptions(Kind.EMBEDDING, device="cpu", prompt=prompt, max_length=max_length)
    model, *_ = load(folder, options)
    assert isinstance(model, EmbeddingModel)
    return model


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("query", "the queen and "), ("document", ""), ("find this: ", "find this: "), ("-snow", "-snow")],
)
def test_prompt(embedding_folder: Path, prompt: str, text: str) -> None:
    """One of the model's own by its name, or the text itself."""
    asked = parse_arguments(["--model", "m", "--served-name", "m", "--port", "1", f"--prompt={prompt}"])
    assert loaded(embedding_folder, prompt=asked.prompt).default_prompt == text


def test_a_prompt_changes_vectors(embedding_folder: Path) -> None:
    """It is what a request with prompt_name gets, for one that names nothing."""
    model = loaded(embedding_folder, prompt="query")
    asked = TokenizeOptions(model.default_prompt)
    vectors = model.compute(model.tokenize(["red fish"], asked))
    named = model.compute(model.tokenize(["red fish"], TokenizeOptions(model.prompts["query"])))
    bare = model.compute(model.tokenize(["red fish"], TokenizeOptions()))
    assert np.allclose(vectors, named)
    assert not np.allclose(vectors, bare, atol=1e-3)


def test_a_mistyped_prompt_is_told(embedding_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is put before inputs all the same, as a text."""
    with caplog.at_level(logging.WARNING):
        loaded(embedding_folder, prompt="qurey")
    assert "'qurey' is no prompt of this model's (it has: clustering, document, query)" in caplog.text


def test_a_shorter_length(embedding_folder: Path) -> None:
    """Inputs are cut to it, and longer ones refused."""
    model = loaded(embedding_folder, max_length=8)
    assert model.max_length == 8
    (item,) = model.tokenize(["red fish " * 30], TokenizeOptions(max_length=model.max_length))
    assert len(item) == 8


@pytest.mark.parametrize(("tokens", "why"), [(MAX_TOKENS + 1, "48 positions"), (2, "no room for a word")])
def test_a_length_that_cannot_be(embedding_folder: Path, tokens: int, why: str) -> None:
    """Refused at the start, not by a kernel later."""
    with pytest.raises(ModelRefused, match=why):
        loaded(embedding_folder, max_length=tokens)


def test_no_prompt_for_a_reranker(reranker_folder: Path) -> None:
    """The supervisor warns and sends none; a person is told."""
    with pytest.raises(ModelRefused, match="for embedding models"):
        load(reranker_folder, LoadOptions(Kind.RERANKER, device="cpu", prompt="query"))
