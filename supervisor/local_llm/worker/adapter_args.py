"""vLLM's flags for the LoRA adapters of a model. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from local_llm.catalog.card import ModelCard
from local_llm.worker.arguments import is_set

# `MaxLoRARanks` in `vllm/config/lora.py` of 0.32.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# In one batch. Each takes memory for its largest rank in every layer: 0.1 GB for rank 16 in an 8B model.
_MOST_AT_ONCE = 4


def adapter_args(card: ModelCard, user_args: Sequence[str]) -> list[str]:
    """Flags that serve all adapters of `card`, under all of their names, beside it.

    Args:
        card: the base's.
        user_args: what the user has set is left to the user.
    """
    if not card.adapters or is_set(user_args, "--enable-lora") or is_set(user_args, "--lora-modules"):
        return []
    largest = max(adapter.rank for adapter in card.adapters)
    modules = [
        # Not name=path: either may hold what that form gives a meaning to.
        json.dumps({"name": name, "path": str(adapter.path.absolute()), "base_model_name": card.id})
        for adapter in card.adapters
        for name in adapter.names
    ]
    count = len(card.adapters)
    flags = {
        "--max-lora-rank": min(rank for rank in _RANKS if rank >= largest),
        "--max-loras": min(count, _MOST_AT_ONCE),
        "--max-cpu-loras": count,
    }
    args = ["--enable-lora", "--lora-modules", *modules]
    for flag, value in flags.items():
        if not is_set(user_args, flag):
            args += [flag, str(value)]
    return args
