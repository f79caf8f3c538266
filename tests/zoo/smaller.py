"""config.json at sizes that a vLLM on two cores loads in a second, its structure kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.zoo.tokenizer import VOCABULARY_SIZE

CONTEXT = 2048
_SIZES: Mapping[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "intermediate_size_mlp": 256,
    "ffn_hidden_size": 256,
    "expert_ffn_hidden_size": 128,
    "moe_intermediate_size": 128,
    "shared_intermediate_size": 128,
    "shared_expert_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 128,
    "share_expert_dim": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_attention_groups": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY_SIZE,
    "max_position_embeddings": CONTEXT,
    "original_max_position_embeddings": CONTEXT,
    "max_seq_len": CONTEXT,
    "n_routed_experts": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "experts_per_token": 2,
    "moe_topk": 2,
    "moe_top_k": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_nextn_predict_layers": 0,
    "first_k_dense_replace": 1,
    "q_lora_rank": 64,
    "rotary_dim": 16,
    "conv_dim": 128,
    "conv_dim_out": 128,
    "block_dim": 128,
    "block_ff_dim": 256,
    "mamba_n_heads": 4,
    "mamba_d_head": 64,
    "sliding_window": 128,
    "sliding_window_pattern": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "expert_hidden_dim": 128,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
}
# The code it names does not lie in the folder; and weights as small as these are not quantized.
_LEFT_OUT = {"auto_map", "quantization_config"}
_LAYERS = ("num_hidden_layers", "num_layers", "max_window_layers")


def smaller(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a small model of the same class, with one layer of each kind, two at least."""
    kinds = list(dict.fromkeys(config.get("layer_types") or ()))
    layers = max(len(kinds), 2)
    found = {key: _small(key, value, layers) for key, value in config.items() if key not in _LEFT_OUT}
    if kinds:
        found["layer_types"] = (kinds * 2)[:layers]
    if isinstance(found.get("rope_scaling"), dict) and "short_factor" in found["rope_scaling"]:
        rotated = int(_SIZES["head_dim"] * found.get("partial_rotary_factor", 1)) // 2
        found["rope_scaling"] |= {"short_factor": [1.0] * rotated, "long_factor": [1.0] * rotated}
    if config.get("model_type") == "gpt_oss":  # vLLM writes its prompts with OpenAI's own tokenizer
        found["vocab_size"] = config["vocab_size"]
    if "moe_layers_enum" in config:
        found["moe_layers_enum"] = "1"
    if config.get("mlp_layer_types"):
        kinds = list(dict.fromkeys(config["mlp_layer_types"]))
        found["mlp_layer_types"] = [*kinds, *kinds[-1:] * layers][:layers]
    return found


def _small(key: str, value: Any, layers: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if key in _LAYERS:
        return layers
    if key in _SIZES:
        return _SIZES[key]
    if key in {"rope_scaling", "rope_parameters", "attention_other_setting"} and isinstance(value, dict):
        return {each: _small(each, inner, layers) for each, inner in value.items()}
    return value
