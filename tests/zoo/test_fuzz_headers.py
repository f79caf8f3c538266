"""Damage of any sort to the headers of weights: safetensors, of models and of adapters, and GGUF."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zoo.fuzzing import BY_ID, NUMBERS, VALUES, judge
from tests.zoo.specimen import Sparse

_HEADED = (
    ("Qwen/Qwen3-0.6B", "model.safetensors"),
    ("zoo/adapter-of-llama", "adapter_model.safetensors"),
)


@pytest.mark.parametrize("length", [1 << 20, 99_000_000, 1 << 30, 8 << 30, (10 << 30) - 8])
@pytest.mark.usefixtures("little_memory")
def test_huge_headers(length: int) -> None:
    """A safetensors header that says it is long, and is; safetensors itself takes up to 100 MB."""
    start = struct.pack("<Q", length) + b'{"a":' + b" " * 1000
    for model_id, name in _HEADED:
        judge({**BY_ID[model_id].files, name: Sparse(start, 10 << 30)})


_DTYPES = st.sampled_from(["BF16", "F32", "U8", "I64", "F8_E4M3", "F4", "", "BF16\n", "c128", "\ud800"])
_OFFSETS = st.lists(NUMBERS, max_size=3) | st.tuples(st.integers(0, 100), st.integers(0, 100)).map(list)
_TENSOR = st.fixed_dictionaries(
    {}, optional={"dtype": _DTYPES | VALUES, "shape": st.lists(NUMBERS) | VALUES, "data_offsets": _OFFSETS}
)
_HEADER = st.dictionaries(
    st.sampled_from(["model.embed_tokens.weight", "lm_head.weight", "__metadata__", "", "\0"])
    | st.text(max_size=5),
    _TENSOR | VALUES,
    max_size=5,
)


def _safetensors(header: object, length: int | None, cut: int | None, tail: bytes) -> bytes:
    text = json.dumps(header).encode()
    start = struct.pack("<Q", len(text) if length is None else length % 2**64)
    return (start + text + tail)[:cut] or b"\0"


@settings(max_examples=100, deadline=None)
@given(
    header=_HEADER | VALUES,
    length=st.none() | st.integers(0, 2**64 - 1),
    cut=st.none() | st.integers(1, 60),
    tail=st.binary(max_size=30),
)
def test_safetensors(header: object, length: int | None, cut: int | None, tail: bytes) -> None:
    """Headers of any length, with any tensors, cut anywhere; of a model's weights and of an adapter's."""
    content = _safetensors(header, length, cut, tail)
    for model_id, name in _HEADED:
        judge({**BY_ID[model_id].files, name: content})


def _gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


_GGUF_KEYS = st.sampled_from(
    [
        b"general.architecture",
        b"tokenizer.chat_template",
        b"llama.context_length",
        b"split.count",
        b"\xff",
        b"",
    ]
)
_GGUF_VALUES = (
    st.tuples(st.just(8), st.binary(max_size=20).map(_gguf_text))  # a text
    | st.tuples(st.just(8), st.integers(0, 2**64 - 1).map(lambda size: struct.pack("<Q", size)))  # its length
    | st.tuples(st.integers(0, 12), st.binary(max_size=16))  # a number, or something cut off
    | st.tuples(  # an array, said to be of any type and length
        st.just(9),
        st.tuples(st.integers(0, 12), st.integers(0, 2**64 - 1)).map(lambda each: struct.pack("<IQ", *each)),
    )
    | st.tuples(st.just(9), st.integers(1, 200).map(lambda depth: struct.pack("<IQ", 9, 1) * depth))
    | st.tuples(st.integers(13, 2**32 - 1), st.just(b""))
)


@settings(max_examples=200, deadline=None)
@given(
    version=st.sampled_from([3, 3, 3, 2, 1, 0, 2**32 - 1]),
    tensors=st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    count=st.none() | st.integers(0, 2**64 - 1),
    pairs=st.lists(st.tuples(_GGUF_KEYS, _GGUF_VALUES), max_size=5),
    cut=st.none() | st.integers(1, 80),
)
def test_gguf(
    version: int,
    tensors: int,
    count: int | None,
    pairs: list[tuple[bytes, tuple[int, bytes]]],
    cut: int | None,
) -> None:
    """Heads of GGUF files with any counts, lengths, types and arrays in arrays, cut anywhere."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs) if count is None else count)
    body = b"".join(_gguf_text(key) + struct.pack("<I", kind) + value for key, (kind, value) in pairs)
    judge({"model-Q4_K_M.gguf": (head + body)[:cut]})
