"""The tiny models are real models: what they claim to be can be loaded and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import (
    CONTEXT_LENGTH,
    EMBEDDING_SIZE,
    write_tiny_chat_model,
    write_tiny_embedding_model,
    write_tiny_reranker,
)

pytestmark = pytest.mark.engines


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text())
    return config


def test_chat_model_is_another_architecture_than_the_demonstration_model(tmp_path: Path) -> None:
    """A switch between the two exercises two different models of vLLM."""
    config = _config(write_tiny_chat_model(tmp_path))
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert config["max_position_embeddings"] == CONTEXT_LENGTH


@pytest.mark.parametrize("sampled", [False, True])
def test_chat_model_speaks_printable_ascii_until_it_is_stopped(tmp_path: Path, sampled: bool) -> None:
    """A test that counts chunks or tokens gets exactly as many as it asked for."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_tiny_chat_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Grüße aus Köln 🎉"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**prompt, max_new_tokens=64, do_sample=sampled)[
        0, prompt["input_ids"].shape[1] :
    ]
    text = tokenizer.decode(written)
    assert len(written) == 64
    assert text.isascii()
    assert text.isprintable()
    assert len(set(written.tolist())) > 8, "it repeats itself"


def test_chat_model_is_the_same_every_time(tmp_path: Path) -> None:
    """Two runs of a test talk to the same weights."""
    first, second = write_tiny_chat_model(tmp_path / "a"), write_tiny_chat_model(tmp_path / "b")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_embedding_model_gives_unit_vectors(tmp_path: Path) -> None:
    """sentence-transformers loads it, pools and normalises."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(write_tiny_embedding_model(tmp_path)), device="cpu")
    vectors = model.encode(["one sentence", "another"])
    assert vectors.shape == (2, EMBEDDING_SIZE)
    assert (vectors**2).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_reranker_scores_pairs_between_nought_and_one(tmp_path: Path) -> None:
    """sentence-transformers loads it as a cross-encoder and applies the sigmoid."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(write_tiny_reranker(tmp_path)), device="cpu")
    scores = model.predict([("a question", "an answer"), ("a question", "something else")])
    assert scores.shape == (2,)
    assert ((scores > 0) & (scores < 1)).all()
    assert scores[0] != scores[1]
