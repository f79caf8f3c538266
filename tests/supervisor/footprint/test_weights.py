"""What is loaded of a model's files, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.files import Unservable
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.safetensors import HEADER_LIMIT_BYTES, tensors
from local_llm.footprint.weights import Weights
from local_llm.settings import Settings
from tests.supervisor.footprint.folders import (
    LLAMA_8B_PARAMETERS,
    Shapes,
    llama_8b,
    write_header,
    write_model,
    write_safetensors,
)


def weights_of(card: ModelCard, *, on_gpu: bool = True, **model: Any) -> Weights:
    """With settings for this model."""
    settings = Settings.model_validate({"models": {card.id: model}})
    return footprint_of(card, settings, on_gpu=on_gpu).weights


def test_llama_8b(tmp_path: Path) -> None:
    """Exactly the parameters of its model card, two bytes each."""
    found = weights_of(llama_8b(tmp_path))
    assert (found.loaded_bytes, found.exact) == (2 * LLAMA_8B_PARAMETERS, True)


TWO: Shapes = {"model.embed_tokens.weight": ("F32", (100, 8)), "model.layers.0.mlp.weight": ("F32", (16, 8))}
NUMBERS = 100 * 8 + 16 * 8


@pytest.mark.parametrize(
    ("engine", "on_gpu", "model", "bytes_each"),
    [
        (Engine.VLLM, True, {}, 2),  # float32 is cast to a type of two bytes
        (Engine.VLLM, False, {}, 2),  # on the CPU too
        (Engine.VLLM, True, {"dtype": "float32"}, 4),
        (Engine.VLLM, True, {"args": ["--dtype=float32"]}, 4),
        (Engine.VLLM, True, {"args": ["--dtype", "half"]}, 2),
        (Engine.TRANSFORMERS, False, {}, 4),
        (Engine.TRANSFORMERS, True, {}, 2),
        (Engine.TRANSFORMERS, False, {"dtype": "bfloat16"}, 2),
    ],
)
def test_the_type_that_is_computed_in(
    tmp_path: Path, engine: Engine, on_gpu: bool, model: dict[str, Any], bytes_each: int
) -> None:
    """By engine, device and settings."""
    card = write_model(tmp_path, {}, {"model.safetensors": TWO}, engine=engine, kind=Kind.RERANKER)
    assert weights_of(card, on_gpu=on_gpu, **model).loaded_bytes == bytes_each * NUMBERS


HEAD: Shapes = {**TWO, "lm_head.weight": ("F32", (100, 8))}


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        ({"tie_word_embeddings": True}, NUMBERS),
        ({"tie_word_embeddings": False}, NUMBERS + 800),
        ({"text_config": {"tie_word_embeddings": True}}, NUMBERS),
        ({"model_type": "gemma"}, NUMBERS),  # the family ties where nothing is said
        ({"model_type": "llama"}, NUMBERS + 800),
        ({}, NUMBERS + 800),
    ],
)
def test_tied_weights_count_once(tmp_path: Path, config: dict[str, Any], numbers: int) -> None:
    """A copy of the embedding that lies in the file is not loaded."""
    card = write_model(tmp_path, config, {"model.safetensors": HEAD})
    assert weights_of(card).loaded_bytes == 2 * numbers


def test_shards_and_their_index(tmp_path: Path) -> None:
    """What the index does not name does not count, and nothing counts twice."""
    first, second = {"a": ("BF16", (10,)), "b": ("BF16", (10,))}, {"b": ("BF16", (10,)), "c": ("I64", (3,))}
    files: dict[str, Shapes] = {"model-1.safetensors": first, "model-2.safetensors": second}
    index = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    card = write_model(tmp_path, {}, files, index=index)
    write_safetensors(tmp_path / "consolidated.safetensors", first)
    assert weights_of(card).loaded_bytes == 40


def test_what_is_stored_and_not_loaded(tmp_path: Path) -> None:
    """Saved buffers, prediction layers for speculative decoding, the head an encoder was trained with."""
    shapes: Shapes = {
        "model.layers.0.w": ("BF16", (4,)),
        "model.layers.1.w": ("BF16", (4,)),  # beyond num_hidden_layers
        "mtp.fc.weight": ("BF16", (4,)),
        "h.0.attn.bias": ("F32", (1, 1, 8, 8)),
        "h.0.attn.c_attn.bias": ("F32", (8,)),  # a real one
        "rotary_emb.inv_freq": ("F32", (8,)),
        "embeddings.position_ids": ("I64", (1, 8)),
        "cls.predictions.bias": ("F32", (8,)),
    }
    config = {"num_hidden_layers": 1, "num_nextn_predict_layers": 1}
    card = write_model(tmp_path, config, {"model.safetensors": shapes})
    assert weights_of(card).loaded_bytes == 2 * (4 + 8 + 8)
    encoder = write_model(
        tmp_path, config, {"model.safetensors": shapes}, engine=Engine.TRANSFORMERS, kind=Kind.EMBEDDING
    )
    assert weights_of(encoder, on_gpu=True).loaded_bytes == 2 * (4 + 8)


@pytest.mark.parametrize(
    ("method", "shapes", "size"),
    [
        # AWQ: eight numbers in 32 bits, scales in float16
        (
            "awq",
            {"q.qweight": ("I32", (64, 8)), "q.scales": ("F16", (1, 64)), "n.weight": ("F32", (8,))},
            2192,
        ),
        # FP8: one byte, and its scales stay float32
        ("fp8", {"q.weight": ("F8_E4M3", (64, 8)), "q.weight_scale_inv": ("F32", (1, 1))}, 516),
        # MXFP4: two numbers in a byte, a scale for each 32
        ("mxfp4", {"q_blocks": ("U8", (64, 16)), "q_scales": ("U8", (64, 1)), "b": ("BF16", (8,))}, 1104),
        ("nvfp4", {"q.weight": ("F4", (64, 32)), "q.weight_scale": ("F8_E4M3", (64, 2))}, 1152),
        ("bitsandbytes", {"q.weight": ("U8", (512, 1)), "q.weight.absmax": ("F32", (16,))}, 576),
    ],
)
def test_quantized_weights_stay_as_they_are(tmp_path: Path, method: str, shapes: Shapes, size: int) -> None:
    """Only what is not quantized is cast."""
    config = {"quantization_config": {"quant_method": method}}
    card = write_model(tmp_path, config, {"model.safetensors": shapes})
    assert weights_of(card).loaded_bytes == size


def test_pickles_are_estimated_by_their_size(tmp_path: Path) -> None:
    """Of the type that config.json says."""
    for dtype, loaded in (("float32", 500), ("float16", 1000), (None, 500)):
        write_model(tmp_path, {"torch_dtype": dtype}, {})
        card = ModelCard(
            "org/a", tmp_path, Kind.CHAT, Engine.VLLM, (), size_bytes=1000, weights=("pytorch_model.bin",)
        )
        found = weights_of(card)
        assert (found.loaded_bytes, found.exact) == (loaded, False)
        assert "estimated" in found.notes[0]


DAMAGED = {
    "cut off": (b"", 0, 1000),
    "absurd length": (b"{}", 0, 1 << 63),
    "not JSON": (b"{", 0, None),
    "no object": (b"[]", 0, None),
    "an entry is no object": (b'{"a": 1}', 0, None),
    "unknown dtype": (b'{"a": {"dtype": "F3", "shape": [1], "data_offsets": [0, 1]}}', 9, None),
    "dtype is a list": (b'{"a": {"dtype": [], "shape": [1], "data_offsets": [0, 1]}}', 9, None),
    "beyond the file": (b'{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}', 8, None),
    "backwards": (b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [3, 2]}}', 8, None),
    "shape and place differ": (b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 8]}}', 8, None),
    "negative": (b'{"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}', 8, None),
    "huge": (b'{"a": {"dtype": "U8", "shape": [' + b"9" * 4000 + b'], "data_offsets": [0, 1]}}', 8, None),
    "true": (b'{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}', 8, None),
    "one offset": (b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [1]}}', 8, None),
    "deep": (b'{"a": ' + b"[" * 100_000, 8, None),
    "many dimensions": (
        b'{"a": {"dtype": "U8", "shape": [' + b"1," * 99 + b'1], "data_offsets": [0, 1]}}',
        8,
        None,
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_headers(tmp_path: Path, name: str) -> None:
    """A reason, and the file's size in place of the count."""
    header, data_bytes, length = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    card = write_model(tmp_path, {"torch_dtype": "bfloat16"}, {path.name: TWO})
    write_header(path, header, data_bytes, length=length)
    with pytest.raises(Unservable, match=r"header|tensor"):
        list(tensors(str(path)))
    found = weights_of(card)
    assert (found.exact, found.loaded_bytes) == (False, card.size_bytes)
    assert path.name in found.notes[0]


def test_a_header_that_claims_too_much_is_not_read(tmp_path: Path) -> None:
    """Though the file is as large as it says."""
    path = tmp_path / "model.safetensors"
    write_header(path, b"", HEADER_LIMIT_BYTES * 2, length=HEADER_LIMIT_BYTES + 1)
    with pytest.raises(Unservable, match="larger than 32 MiB"):
        list(tensors(str(path)))


@pytest.mark.parametrize("name", ["missing.safetensors", "folder.safetensors"])
def test_no_file(tmp_path: Path, name: str) -> None:
    """The folder changed after it was scanned."""
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(Unservable, match=r"cannot be read|regular"):
        list(tensors(str(tmp_path / name)))
