"""What published models keep for a token, by hand from their config.json: see the arithmetic of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from local_llm.footprint.fields import text_fields
from local_llm.footprint.footprint import Footprint
from local_llm.footprint.layers import UnknownLayers, ValueBytes
from local_llm.footprint.model_layers import layers_of
from local_llm.footprint.weights import Weights

TWO_BYTES = ValueBytes(model=2, kv=2)


def kept(config: Mapping[str, Any], sizes: ValueBytes = TWO_BYTES) -> tuple[int | None, int, int]:
    """Bytes a token, of all windows and of all states."""
    found = Footprint(Weights(0, 0, exact=True), tuple(layers_of(text_fields(config), sizes)))
    return found.kv_bytes_per_token, found.window_bytes, found.state_bytes


def dense(
    model_type: str, layers: int, heads: int, kv_heads: int, hidden: int, **more: Any
) -> dict[str, Any]:
    """The five fields that nearly all have."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_size": hidden,
        **more,
    }


ATTENTION = {
    # 32 layers x 8 heads x 128 x (key + value) x 2 bytes
    "Llama-3.1-8B": (dense("llama", 32, 32, 8, 4096), 32 * 8 * 128 * 2 * 2, 0),  # 128 KiB
    # 28 x 4 x 128 x 2 x 2; its window is switched off
    "Qwen2.5-7B": (
        dense(
            "qwen2", 28, 28, 4, 3584, sliding_window=131072, max_window_layers=28, use_sliding_window=False
        ),
        28 * 4 * 128 * 2 * 2,  # 56 KiB
        0,
    ),
    # head_dim is stated, and is not 2560 / 32
    "Qwen3-4B": (dense("qwen3", 36, 32, 8, 2560, head_dim=128, sliding_window=None), 36 * 8 * 128 * 4, 0),
    # every layer slides over 4096
    "Mistral-7B-v0.1": (
        dense("mistral", 32, 32, 8, 4096, sliding_window=4096),
        0,
        32 * 8 * 128 * 4 * 4096,  # 512 MiB
    ),
    "Mistral-7B-v0.3": (dense("mistral", 32, 32, 8, 4096, sliding_window=None), 32 * 8 * 128 * 4, 0),
    # 61 layers x (512 + 64) x 2 bytes; one vector, no value beside it
    "DeepSeek-V3": (
        dense("deepseek_v3", 61, 128, 128, 7168, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128),
        61 * (512 + 64) * 2,  # 70,272
        0,
    ),
    # the index beside it: 128 + 4 bytes of scale a token
    "DeepSeek-V3.2": (
        dense(
            "deepseek_v32",
            61,
            128,
            128,
            7168,
            kv_lora_rank=512,
            qk_rope_head_dim=64,
            qk_nope_head_dim=128,
            index_head_dim=128,
        ),
        61 * ((512 + 64) * 2 + 132),
        0,
    ),
    # no latent cache in vLLM: 40 heads of 64 + 32
    "MiniCPM3-4B": (
        dense("minicpm3", 62, 40, 40, 2560, kv_lora_rank=256, qk_rope_head_dim=32, qk_nope_head_dim=64),
        62 * 40 * 96 * 4,
        0,
    ),
    # every second of 42 layers is full, the others slide over 4096
    "gemma-2-9b": (
        dense("gemma2", 42, 16, 8, 3584, head_dim=256, sliding_window=4096),
        21 * 8 * 256 * 4,
        21 * 8 * 256 * 4 * 4096,
    ),
    # its config.json leaves the heads to transformers' class: 8, 4 for keys, of 256. 5 of 34 are full.
    "gemma-3-4b": (
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "num_hidden_layers": 34,
                "sliding_window": 1024,
            },
        },
        5 * 4 * 256 * 4,
        29 * 4 * 256 * 4 * 1024,
    ),
    # 12 of 24 slide over 128
    "gpt-oss-20b": (
        dense(
            "gpt_oss",
            24,
            64,
            8,
            2880,
            head_dim=64,
            sliding_window=128,
            layer_types=["sliding_attention", "full_attention"] * 12,
        ),
        12 * 8 * 64 * 4,
        12 * 8 * 64 * 4 * 128,
    ),
    # the last 20 of 35 use the cache of earlier ones; of the first 15, 3 are full
    "gemma-3n-E4B": (
        {
            "model_type": "gemma3n",
            "text_config": dense(
                "gemma3n_text",
                35,
                8,
                2,
                2048,
                head_dim=256,
                sliding_window=512,
                num_kv_shared_layers=20,
                layer_types=(["sliding_attention"] * 4 + ["full_attention"]) * 7,
            ),
        },
        3 * 2 * 256 * 4,
        12 * 2 * 256 * 4 * 512,
    ),
    # chunked attention is allocated like full attention
    "Llama-4-Scout": (
        {
            "model_type": "llama4",
            "text_config": dense(
                "llama4_text",
                48,
                40,
                8,
                5120,
                head_dim=128,
                attention_chunk_size=8192,
                layer_types=(["chunked_attention"] * 3 + ["full_attention"]) * 12,
            ),
        },
        48 * 8 * 128 * 4,
        0,
    ),
    # one head for keys and one for values
    "falcon-7b": (
        {"model_type": "falcon", "num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544},
        32 * 1 * 64 * 4,
        0,
    ),
    "falcon-40b": (
        {
            "model_type": "falcon",
            "num_hidden_layers": 60,
            "num_attention_heads": 128,
            "num_kv_heads": 8,
            "hidden_size": 8192,
            "new_decoder_architecture": True,
        },
        60 * 8 * 64 * 4,
        0,
    ),
    # all from transformers' defaults: 12 layers, 12 heads of 64
    "gpt2": ({"model_type": "gpt2"}, 12 * 12 * 64 * 4, 0),
    # llava's text_config says only that it is a Llama: 32 layers, 32 heads of 128
    "llava-1.5-7b": ({"model_type": "llava", "text_config": {"model_type": "llama"}}, 32 * 32 * 128 * 4, 0),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name: str) -> None:
    """Whole context and windows, in the type of the model."""
    config, per_token, windows = ATTENTION[name]
    assert kept(config) == (per_token, windows, 0)


STATES = {
    # 12 of 48 attend: 2 heads of 256. Of the others, a convolution over 3 of 2*16*128 + 32*128 numbers,
    # and 32 x 128 x 128 numbers.
    "Qwen3-Next-80B": (
        dense(
            "qwen3_next",
            48,
            16,
            2,
            2048,
            head_dim=256,
            linear_num_key_heads=16,
            linear_num_value_heads=32,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            linear_conv_kernel_dim=4,
            full_attention_interval=4,
        ),
        12 * 2 * 256 * 4,
        36 * (3 * (2 * 16 * 128 + 32 * 128) + 32 * 128 * 128) * 2,
    ),
    # layers 4, 12, 20, 28 attend; the others are 2 * 4096 wide, 3 of a convolution and 16 of a state
    "Jamba-v0.1": (
        dense(
            "jamba",
            32,
            32,
            8,
            4096,
            attn_layer_period=8,
            attn_layer_offset=4,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_expand=2,
        ),
        4 * 8 * 128 * 4,
        28 * 8192 * (3 + 16) * 2,
    ),
    # every layer does both; the convolution has 3072 + 2 * 1 * 256 numbers
    "Falcon-H1-7B": (
        dense(
            "falcon_h1",
            44,
            12,
            2,
            3072,
            head_dim=128,
            mamba_d_ssm=3072,
            mamba_n_heads=24,
            mamba_d_head=128,
            mamba_n_groups=1,
            mamba_d_state=256,
            mamba_d_conv=4,
        ),
        44 * 2 * 128 * 4,
        44 * (3 * (3072 + 512) + 3072 * 256) * 2,
    ),
    # 4 stars; its recurrent state is float32
    "Nemotron-H-8B": (
        dense(
            "nemotron_h",
            52,
            32,
            8,
            4096,
            head_dim=128,
            hybrid_override_pattern="M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
            mamba_num_heads=128,
            mamba_head_dim=64,
            n_groups=8,
            ssm_state_size=128,
            conv_kernel=4,
        ),
        4 * 8 * 128 * 4,
        24 * (3 * (8192 + 2 * 8 * 128) * 2 + 8192 * 128 * 4),
    ),
    # 4 of 40 attend
    "granite-4.0-h-tiny": (
        dense(
            "granitemoehybrid",
            40,
            12,
            4,
            1536,
            layer_types=(["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4,
            mamba_n_heads=48,
            mamba_d_head=64,
            mamba_n_groups=1,
            mamba_d_state=128,
            mamba_d_conv=4,
            mamba_expand=2,
        ),
        4 * 4 * 128 * 4,
        36 * (3 * (3072 + 256) + 3072 * 128) * 2,
    ),
    # two steps back of 2048 numbers
    "LFM2-1.2B": (
        dense("lfm2", 16, 32, 8, 2048, full_attn_idxs=[2, 5, 8, 10, 12, 14], conv_L_cache=3, conv_dim=2048),
        6 * 8 * 64 * 4,
        10 * 2 * 2048 * 2,
    ),
    # no attention at all
    "mamba-130m": (
        {
            "model_type": "mamba",
            "num_hidden_layers": 24,
            "hidden_size": 768,
            "intermediate_size": 1536,
            "state_size": 16,
            "conv_kernel": 4,
        },
        0,
        24 * 1536 * (3 + 16) * 2,
    ),
    "mamba2-2.7b": (
        {
            "model_type": "mamba2",
            "num_hidden_layers": 64,
            "hidden_size": 2560,
            "expand": 2,
            "num_heads": 80,
            "head_dim": 64,
            "n_groups": 1,
            "state_size": 128,
            "conv_kernel": 4,
        },
        0,
        64 * (3 * (5120 + 256) + 5120 * 128) * 2,
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_states(name: str) -> None:
    """State-space layers, linear attention, short convolutions."""
    config, per_token, states = STATES[name]
    assert kept(config) == (per_token, 0, states)


def test_whisper_keeps_what_it_hears() -> None:
    """large-v3-turbo: four decoder layers, 20 heads of 64, and as much again of the encoder's output."""
    config = {
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "num_hidden_layers": 32,
        "decoder_layers": 4,
        "decoder_attention_heads": 20,
        "d_model": 1280,
    }
    layers = layers_of(text_fields(config), TWO_BYTES)
    assert kept(config) == (4 * 20 * 64 * 4, 0, 0)
    assert len(layers) == 8


def test_types_of_numbers() -> None:
    """FP8 halves keys and values, not states; float32 doubles a recurrent state."""
    jamba = STATES["Jamba-v0.1"][0]
    assert kept(jamba, ValueBytes(model=2, kv=1)) == (4 * 8 * 128 * 2, 0, 28 * 8192 * (3 + 16) * 2)
    assert kept(jamba, ValueBytes(model=2, kv=2, recurrent=4))[2] == 28 * 8192 * (3 * 2 + 16 * 4)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "how many layers"),
        ({"num_hidden_layers": 1 << 40}, "how many layers"),
        ({"num_hidden_layers": 2}, "large its attention heads"),
        ({"num_hidden_layers": 2, "head_dim": 64}, "how many attention heads"),
        (dense("deepseek_v4", 2, 2, 2, 64, compress_ratios=[1, 4]), "compressed"),
        (dense("new", 2, 2, 2, 64, layer_types=["full_attention", "telepathy"]), "telepathy"),
        (dense("new", 2, 2, 2, 64, layer_types=["linear_attention"] * 2), "unknown size"),
        (dense("nemotron_h", 2, 2, 2, 64), "which of its layers attend"),
        (dense("zamba2", 2, 2, 2, 64), "which of its layers attend"),
    ],
)
def test_unknown(config: dict[str, Any], reason: str) -> None:
    """Said in words, never guessed."""
    with pytest.raises(UnknownLayers, match=reason):
        layers_of(text_fields(config), TWO_BYTES)
