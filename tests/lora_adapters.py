"""Makes LoRA adapters of a real model, untrained but strong enough that one sees them in its answers."""

from __future__ import annotations

import json
from pathlib import Path

RANK = 8
ALPHA = 16
_MODULES = ("q_proj", "v_proj")
_STRENGTH = 0.2


def write_adapter(folder: Path, base: Path, base_name: str, seed: int) -> None:
    """Writes what PEFT would: adapter_config.json and adapter_model.safetensors.

    Args:
        folder: is made.
        base: the model's folder, with one weight file.
        base_name: what the adapter calls it.
        seed: another one, other answers.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    with safe_open(base / "model.safetensors", "pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - no mapping
            if name.endswith(tuple(f"{module}.weight" for module in _MODULES)):
                outputs, inputs = weights.get_slice(name).get_shape()
                module = f"base_model.model.{name.removesuffix('.weight')}"
                for side, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
                    matrix = torch.randn(shape, generator=chance) * _STRENGTH
                    tensors[f"{module}.lora_{side}.weight"] = matrix
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(_MODULES),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
