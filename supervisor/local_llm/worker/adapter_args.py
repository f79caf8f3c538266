"""vLLM's flags for the LoRA adapters of a model. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from local_llm.arguments import is_set, number_of
from local_llm.catalog.adapters import flag_against
from local_llm.catalog.card import ModelCard

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
    if not card.adapters or flag_against(user_args):
        return []
    largest = max(adapter.rank for adapter in card.adapters)
    modules = [
        # Not name=path: either may hold what that form gives a meaning to.
        json.dumps({"name": name, "path": str(adapter.path.absolute()), "base_model_name": card.id})
        for adapter in card.adapters
        for name in adapter.names
    ]
    count = at_once = len(card.adapters)
    if is_set(user_args, "--max-cpu-loras"):
        at_once = min(count, number_of(user_args, "--max-cpu-loras"))
    flags = {
        "--max-lora-rank": min(rank for rank in _RANKS if rank >= largest),
        "--max-loras": min(at_once, _MOST_AT_ONCE),
        # vLLM refuses fewer than --max-loras.
        "--max-cpu-loras": max(count, number_of(user_args, "--max-loras")),
    }
    enable = [] if is_set(user_args, "--enable-lora") else ["--enable-lora"]
    args = [*enable, "--lora-modules", *modules]
    for flag, value in flags.items():
        if not is_set(user_args, flag):
            args += [flag, str(value)]
    return args
