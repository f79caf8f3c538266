"""Model folders of true shapes and no weight: headers of safetensors over files that are sparse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.footprint.safetensors import BITS

Shapes = Mapping[str, tuple[str, Sequence[int]]]


def write_safetensors(path: Path, tensors: Shapes) -> int:
    """Writes a header for `name: (dtype, shape)`, and nothing where the tensors were; returns the size."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    write_header(path, json.dumps(entries).encode(), end)
    return path.stat().st_size


def write_header(path: Path, header: bytes, data_bytes: int, *, length: int | None = None) -> None:
    """Writes any header, and a length that may lie."""
    with path.open("wb") as file:
        file.write((len(header) if length is None else length).to_bytes(8, "little"))
        file.write(header)
        file.truncate(8 + len(header) + data_bytes)


def write_model(
    folder: Path,
    config: Mapping[str, Any],
    files: Mapping[str, Shapes],
    *,
    index: Mapping[str, str] | None = None,
    kind: Kind = Kind.CHAT,
    engine: Engine = Engine.VLLM,
) -> ModelCard:
    """A folder with these weights, and what the catalogue would say of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    size = sum(write_safetensors(folder / name, tensors) for name, tensors in files.items())
    return ModelCard("org/a", folder, kind, engine, (), size_bytes=size, weights=tuple(files))


def llama(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocabulary: int) -> Shapes:
    """Every tensor of a Llama, as published, in bfloat16."""
    head = hidden // heads
    shapes: dict[str, tuple[str, Sequence[int]]] = {
        "model.embed_tokens.weight": ("BF16", (vocabulary, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
        "lm_head.weight": ("BF16", (vocabulary, hidden)),
    }
    for layer in range(layers):
        sizes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv_heads * head, hidden),
            "self_attn.v_proj": (kv_heads * head, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (intermediate, hidden),
            "mlp.up_proj": (intermediate, hidden),
            "mlp.down_proj": (hidden, intermediate),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": ("BF16", size) for name, size in sizes.items()}
    return shapes


LLAMA_8B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
}
LLAMA_8B_PARAMETERS = 8_030_261_248
"""As its model card says."""


def llama_8b(folder: Path, **more: Any) -> ModelCard:
    """Llama-3.1-8B."""
    shapes = llama(32, 4096, 14336, 32, 8, 128256)
    return write_model(folder, {**LLAMA_8B, **more}, {"model.safetensors": shapes})
