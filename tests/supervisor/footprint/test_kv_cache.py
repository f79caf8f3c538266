"""vLLM's arithmetic of blocks, by hand. `test_engines.py` holds it against vLLM itself."""

from __future__ import annotations

import pytest

from local_llm.footprint.context import longest_context
from local_llm.footprint.fields import text_fields
from local_llm.footprint.kv_cache import Scheme, kv_cache
from local_llm.footprint.layers import Attention, CrossAttention, State

GIB = 1 << 30
FULL = Attention(heads=8, head_bytes=512)  # 4 KiB a token
WINDOW = Attention(heads=8, head_bytes=512, window=1024)
BLOCK_OF_16 = Scheme(block_tokens=16, in_flight_tokens=4096, encoder_tokens=2048)


def test_full_attention() -> None:
    """32 layers: a block has 16 tokens of 128 KiB. Only whole blocks, and one is held back."""
    cache = kv_cache([FULL] * 32, BLOCK_OF_16)
    assert cache.block_bytes == 16 * 128 << 10
    assert cache.tokens(GIB, 4096) == 8192
    assert cache.longest(GIB, 131072) == 8192 - 16
    assert cache.longest(GIB, 100) == 100
    assert cache.longest(cache.block_bytes, 100) == 0


def test_windows_beside_full_attention() -> None:
    """5 full and 29 sliding layers: groups of 5, so one and six of which the last is padded.

    For 32,768 tokens 2,048 blocks of the first, and of each of the others
    ceil((1023 + 4096) / 16) + 1 = 321.
    """
    cache = kv_cache([FULL] * 5 + [WINDOW] * 29, BLOCK_OF_16)
    assert cache.block_bytes == 5 * 16 * 4096
    assert cache.blocks(32768) == 2048 + 6 * 321
    assert cache.tokens(GIB, 32768) == GIB // cache.block_bytes * 32768 // (2048 + 6 * 321)


def test_nearly_as_many_are_padded_not_split() -> None:
    """12 and 13 make two groups of 13."""
    cache = kv_cache([FULL] * 13 + [WINDOW] * 12, BLOCK_OF_16)
    assert (len(cache.groups), cache.block_bytes) == (2, 13 * 16 * 4096)


def test_states_beside_attention() -> None:
    """A state of 1 MB is larger than 16 tokens of 4 KiB: a block grows to 256 tokens, which hold it."""
    cache = kv_cache([FULL] * 2 + [State(1_000_000)] * 6, BLOCK_OF_16)
    assert cache.block_bytes == 2 * 256 * 4096  # 245 tokens, in multiples of 16
    assert cache.blocks(32768) == 32768 // 256 + 3 * 2
    twice = kv_cache([FULL] * 2 + [State(1_000_000, checkpoints=1)] * 6, BLOCK_OF_16)
    assert twice.blocks(32768) == 32768 // 256 + 3 * 3


def test_nothing_but_states() -> None:
    """One block a request, however long it is."""
    cache = kv_cache([State(1000)] * 4, BLOCK_OF_16)
    assert (cache.block_bytes, cache.blocks(1), cache.blocks(1_000_000)) == (4000, 1, 1)


def test_an_encoder() -> None:
    """Whisper: 448 tokens, and up to 2,048 positions of sound."""
    cross = CrossAttention(heads=8, head_bytes=512)
    assert kv_cache([FULL, cross], BLOCK_OF_16).blocks(448) == 28 + 128


def test_no_layers() -> None:
    """No cache."""
    cache = kv_cache([], BLOCK_OF_16)
    assert (cache.tokens(GIB, 10), cache.longest(GIB, 10), cache.request_bytes(10)) == (0, 10, 0)


@pytest.mark.parametrize(
    ("layer", "shares"),
    [
        (FULL, {1: 4096, 2: 2048, 8: 512, 16: 512}),  # no device is without a head
        (Attention(heads=1, head_bytes=1152), {1: 1152, 8: 1152}),  # a latent vector is whole on each
    ],
)
def test_heads_are_shared(layer: Attention, shares: dict[int, int]) -> None:
    """By devices that share each layer."""
    assert {size: layer.token_bytes(size) for size in shares} == shares


def test_states_are_shared() -> None:
    """One group of two kilobytes is copied to the second device."""
    state = State(bytes_in_all=1_000_000, group_bytes=2000, groups=1)
    assert (state.device_bytes(1), state.device_bytes(2)) == (1_000_000, 501_000)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024, "max_position_embeddings": 4096}, 1024),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 8192),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4}}, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope"},
            },
            4096,
        ),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),  # Command-R
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, 131072),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}, "n_ctx": 512}, 1024),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "linear", "factor": None}}, 4096),
        ({}, 2048),
    ],
)
def test_the_longest_context(config: dict[str, object], length: int) -> None:
    """As vLLM derives it."""
    assert longest_context(text_fields(config)) == length
