"""Where a model is computed, in which type of number, and how much at once."""

from __future__ import annotations

from typing import Any

import torch

from local_llm_worker.pooling.batching import BatchLimits
from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.turns import Lanes

# Their activations overflow float16: EmbeddingGemma's card says so, T5's history too.
_NOT_IN_FLOAT16 = ("gemma", "t5", "mt5", "umt5")

# A CPU computes 2,048 tokens at once no slower per token than 16,384 (MiniLM: 180 against 220 µs), and
# the shorter the batch, the sooner those who came meanwhile have their turn.
_CPU_BATCH_TOKENS = 2048
# Tokens in whose time a batch begins and ends: measured on a CPU (MiniLM), a guess on a GPU.
_CPU_BATCH_COST, _GPU_BATCH_COST = 60, 1024

# Families whose code in transformers keeps nothing from one batch to the next, so that several threads may be
# in it at once (read in 5.19; its own hooks say that they are safe for threads). BigBird changes its kind of
# attention with the batch's length, and so do some rotary embeddings their frequencies.
_KEEP_NOTHING = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "mpnet"}
    | {"roberta", "xlm-roberta", "xlm-roberta-xl"}
)


def choose_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ModelRefused: CUDA is asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ModelRefused("--device cuda: torch finds no CUDA device here.")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def choose_dtype(name: str, device: torch.device, model_type: str) -> torch.dtype:
    """The type of the weights. ``auto``: float32 on a CPU, on a GPU bfloat16 if it has that, else float16.

    Args:
        name: ``auto``, or torch's name of a type.
        device: computes.
        model_type: the family in config.json; some are not computed in float16.

    Raises:
        ModelRefused: float16 is asked for and the family cannot take it.
    """
    overflows = model_type.startswith(_NOT_IN_FLOAT16)
    if name == "float16" and overflows:
        raise ModelRefused(f"--dtype float16: models of the family {model_type} overflow in it.")
    if name != "auto":
        dtype: Any = getattr(torch, name)
        return dtype
    if device.type == "cpu":
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if overflows else torch.float16


def batch_limits(device: torch.device, max_batch_tokens: int) -> BatchLimits:
    """What is computed at once on `device`, within what the user allows."""
    if device.type == "cpu":
        return BatchLimits(min(max_batch_tokens, _CPU_BATCH_TOKENS), _CPU_BATCH_COST)
    return BatchLimits(max_batch_tokens, _GPU_BATCH_COST)


def choose_lanes(device: torch.device, threads: int, model_type: str, *, remote_code: bool) -> Lanes:
    """How many batches are computed at once: two on a CPU with several cores, if the model's code lets them.

    Args:
        device: computes.
        threads: that torch may use, all lanes together.
        model_type: the family in config.json.
        remote_code: whether the family's code may come from the model's folder.
    """
    if device.type != "cpu" or threads < 2 or remote_code or model_type not in _KEEP_NOTHING:
        return Lanes(threads, (threads,))
    return Lanes(threads, (threads - threads // 2, threads // 2))
