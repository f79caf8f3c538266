"""LoRA adapters as PEFT writes them, with a few bytes for weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.supervisor.catalog.folders import Content, write

CONFIG: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 16,
    "lora_alpha": 32,
    "bias": "none",
    "modules_to_save": None,
    "use_dora": False,
    "init_lora_weights": True,
    "target_modules": ["q_proj", "v_proj"],
}
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(
    folder: Path, base: str, *, rank: int = 16, files: Mapping[str, Content] = {}, **more: Any
) -> Path:
    """A complete adapter.

    Args:
        folder: becomes it.
        base: what it names as its base.
        rank: of its matrices.
        files: further ones, or others in place of the usual.
        more: of adapter_config.json.
    """
    config = {**CONFIG, "base_model_name_or_path": base, "r": rank, **more}
    weights = safetensors({f"{MODULE}.lora_A.weight": [rank, 8], f"{MODULE}.lora_B.weight": [8, rank]})
    return write(folder, {"adapter_config.json": config, "adapter_model.safetensors": weights, **files})


def safetensors(shapes: Mapping[str, list[int]]) -> bytes:
    """A file with tensors of these shapes, in 16 bits, all zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)
