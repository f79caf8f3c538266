"""The parameters of published models, from the sizes in their config.json: names, data types, shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.zoo.weights import Tensor

Linear = Callable[[str, int, int], Iterator[tuple[str, Tensor]]]
"""Parameters of a linear layer: name, outputs, inputs."""


def plain(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """Not quantized."""
    yield f"{name}.weight", ("BF16", (outputs, inputs))


def awq(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """AutoAWQ, 4 bits, groups of 128."""
    yield f"{name}.qweight", ("I32", (inputs, outputs // 8))
    yield f"{name}.qzeros", ("I32", (inputs // 128, outputs // 8))
    yield f"{name}.scales", ("F16", (inputs // 128, outputs))


def gptq(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """GPTQModel, 4 bits, groups of 128."""
    yield f"{name}.qweight", ("I32", (inputs // 8, outputs))
    yield f"{name}.qzeros", ("I32", (inputs // 128, outputs // 8))
    yield f"{name}.scales", ("F16", (inputs // 128, outputs))
    yield f"{name}.g_idx", ("I32", (inputs,))


def fp8_channel(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """compressed-tensors, FP8 with a scale for each channel."""
    yield f"{name}.weight", ("F8_E4M3", (outputs, inputs))
    yield f"{name}.weight_scale", ("BF16", (outputs, 1))


def packed(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """compressed-tensors, 4 bits packed into integers, groups of 128."""
    yield f"{name}.weight_packed", ("I32", (outputs, inputs // 8))
    yield f"{name}.weight_scale", ("BF16", (outputs, inputs // 128))
    yield f"{name}.weight_shape", ("I64", (2,))


def nvfp4(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """NVIDIA's ModelOpt, 4-bit floats in blocks of 16."""
    yield f"{name}.weight", ("U8", (outputs, inputs // 2))
    yield f"{name}.weight_scale", ("F8_E4M3", (outputs, inputs // 16))
    yield f"{name}.weight_scale_2", ("F32", ())
    yield f"{name}.input_scale", ("F32", ())


def nf4(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
    """bitsandbytes, 4 bits, with its constants quantized too."""
    yield f"{name}.weight", ("U8", (outputs * inputs // 2, 1))
    yield f"{name}.weight.absmax", ("U8", (outputs * inputs // 64,))
    yield f"{name}.weight.quant_map", ("F32", (16,))
    yield f"{name}.weight.nested_absmax", ("F32", (outputs * inputs // 64 // 256,))
    yield f"{name}.weight.nested_quant_map", ("F32", (256,))
    yield f"{name}.weight.quant_state.bitsandbytes__nf4", ("U8", (160,))


def decoder(
    config: Mapping[str, Any], linear: Linear = plain, *, stored_head: bool = False
) -> dict[str, Tensor]:
    """Llama and its like: Qwen2 (biases), Qwen3 (norms of heads), Gemma 3 (four norms), Granite, Mixtral.

    Args:
        config: config.json.
        linear: how linear layers are stored.
        stored_head: the output layer is in the file although it is tied to the embedding.
    """
    kind, hidden = config["model_type"], config["hidden_size"]
    found: dict[str, Tensor] = {"model.embed_tokens.weight": ("BF16", (config["vocab_size"], hidden))}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        found |= _attention(f"{prefix}.self_attn", config, linear)
        if "num_local_experts" in config:
            found |= _mixtral_experts(f"{prefix}.block_sparse_moe", config)
        else:
            found |= _mlp(f"{prefix}.mlp", config["intermediate_size"], hidden, linear)
        norms = ["input_layernorm", "post_attention_layernorm"]
        if kind == "gemma3_text":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        found |= {f"{prefix}.{norm}.weight": ("BF16", (hidden,)) for norm in norms}
    found["model.norm.weight"] = ("BF16", (hidden,))
    if stored_head or not config.get("tie_word_embeddings", kind == "gemma3_text"):
        found["lm_head.weight"] = ("BF16", (config["vocab_size"], hidden))
    return found


def _attention(prefix: str, config: Mapping[str, Any], linear: Linear) -> dict[str, Tensor]:
    hidden, heads, groups = (config[key] for key in _ATTENTION_KEYS)
    size = config.get("head_dim") or hidden // heads
    if config["model_type"] == "phi3":
        found = dict(linear(f"{prefix}.qkv_proj", (heads + 2 * groups) * size, hidden))
        return found | dict(linear(f"{prefix}.o_proj", hidden, heads * size))
    found = {}
    for name, outputs in (("q", heads * size), ("k", groups * size), ("v", groups * size)):
        found |= linear(f"{prefix}.{name}_proj", outputs, hidden)
        if config["model_type"] == "qwen2":
            found[f"{prefix}.{name}_proj.bias"] = ("BF16", (outputs,))
    found |= linear(f"{prefix}.o_proj", hidden, heads * size)
    if config["model_type"] in {"qwen3", "gemma3_text"}:
        found |= {f"{prefix}.{each}_norm.weight": ("BF16", (size,)) for each in "qk"}
    return found


_ATTENTION_KEYS = ("hidden_size", "num_attention_heads", "num_key_value_heads")


def _mlp(prefix: str, inner: int, hidden: int, linear: Linear = plain) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name in ("gate_proj", "up_proj"):
        found |= linear(f"{prefix}.{name}", inner, hidden)
    return found | dict(linear(f"{prefix}.down_proj", hidden, inner))


def _mixtral_experts(prefix: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    inner, hidden, count = (config[key] for key in ("intermediate_size", "hidden_size", "num_local_experts"))
    found: dict[str, Tensor] = {f"{prefix}.gate.weight": ("BF16", (count, hidden))}
    for expert in range(count):
        for name, shape in (("w1", (inner, hidden)), ("w2", (hidden, inner)), ("w3", (inner, hidden))):
            found[f"{prefix}.experts.{expert}.{name}.weight"] = ("BF16", shape)
    return found


def gpt_oss(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """gpt-oss: MXFP4 experts as blocks and scales, everything else in bfloat16."""
    hidden, inner, count = (config[key] for key in ("hidden_size", "intermediate_size", "num_local_experts"))
    size, vocabulary = config["head_dim"], config["vocab_size"]
    queries, groups = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    found: dict[str, Tensor] = {"model.embed_tokens.weight": ("BF16", (vocabulary, hidden))}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        attention = {
            "q": (queries, hidden),
            "k": (groups, hidden),
            "v": (groups, hidden),
            "o": (hidden, queries),
        }
        for name, shape in attention.items():
            found[f"{prefix}.self_attn.{name}_proj.weight"] = ("BF16", shape)
            found[f"{prefix}.self_attn.{name}_proj.bias"] = ("BF16", shape[:1])
        found[f"{prefix}.self_attn.sinks"] = ("BF16", (config["num_attention_heads"],))
        for name, outputs, inputs in (("gate_up", 2 * inner, hidden), ("down", hidden, inner)):
            experts = f"{prefix}.mlp.experts.{name}_proj"
            found[f"{experts}_blocks"] = ("U8", (count, outputs, inputs // 32, 16))
            found[f"{experts}_scales"] = ("U8", (count, outputs, inputs // 32))
            found[f"{experts}_bias"] = ("BF16", (count, outputs))
        found[f"{prefix}.mlp.router.weight"] = ("BF16", (count, hidden))
        found[f"{prefix}.mlp.router.bias"] = ("BF16", (count,))
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}.{norm}.weight"] = ("BF16", (hidden,))
    found["model.norm.weight"] = ("BF16", (hidden,))
    found["lm_head.weight"] = ("BF16", (vocabulary, hidden))
    return found


def deepseek_v2(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """DeepSeek-V2-Lite: latent attention without a low rank for queries, dense layers, then experts."""
    hidden, heads, rank = (config[key] for key in ("hidden_size", "num_attention_heads", "kv_lora_rank"))
    nope, rope, value = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    inner = config["moe_intermediate_size"]
    found: dict[str, Tensor] = {"model.embed_tokens.weight": ("BF16", (config["vocab_size"], hidden))}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        found |= {
            f"{prefix}.self_attn.q_proj.weight": ("BF16", (heads * (nope + rope), hidden)),
            f"{prefix}.self_attn.kv_a_proj_with_mqa.weight": ("BF16", (rank + rope, hidden)),
            f"{prefix}.self_attn.kv_a_layernorm.weight": ("BF16", (rank,)),
            f"{prefix}.self_attn.kv_b_proj.weight": ("BF16", (heads * (nope + value), rank)),
            f"{prefix}.self_attn.o_proj.weight": ("BF16", (hidden, heads * value)),
            f"{prefix}.input_layernorm.weight": ("BF16", (hidden,)),
            f"{prefix}.post_attention_layernorm.weight": ("BF16", (hidden,)),
        }
        if layer < config["first_k_dense_replace"]:
            found |= _mlp(f"{prefix}.mlp", config["intermediate_size"], hidden)
            continue
        found[f"{prefix}.mlp.gate.weight"] = ("BF16", (config["n_routed_experts"], hidden))
        for expert in range(config["n_routed_experts"]):
            found |= _mlp(f"{prefix}.mlp.experts.{expert}", inner, hidden)
        found |= _mlp(f"{prefix}.mlp.shared_experts", config["n_shared_experts"] * inner, hidden)
    found["model.norm.weight"] = ("BF16", (hidden,))
    found["lm_head.weight"] = ("BF16", (config["vocab_size"], hidden))
    return found


def token(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A part for the whole, where only the presence of weights matters: an embedding and a norm."""
    text = config
    for key in ("text_config", "llm_config", "thinker_config"):
        text = config.get(key, text)
    hidden = text.get("hidden_size", 64)
    return {
        "model.embed_tokens.weight": ("BF16", (text.get("vocab_size", 1000), hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
