"""How vLLM is started on a GPU: `engines.vllm.start`, and where it keeps what it has compiled. Pure.

What each profile trades, by figures that others have published (none was measured here, for want of a
GPU): graph capture at all batch sizes 54 s, at a few 7 s (8B, L40S; Tensorfuse); compilation 31 s, from the
cache 15 s (32B; vllm#32191); eager, without either, 27 s in place of 70 s (vllm-omni#4732), with slower
tokens from then on.

The user's arguments win over all of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal, TypeAlias

from local_llm.arguments import is_set

StartProfile: TypeAlias = Literal["balanced", "fast", "full"]

# One user, and a few: larger batches run compiled, without a graph.
_FEW_GRAPHS = 64

_FLAGS: Mapping[StartProfile, tuple[str, ...]] = {
    "full": (),
    "balanced": ("--max-cudagraph-capture-size", str(_FEW_GRAPHS)),
    "fast": ("--optimization-level", "0"),
}

# Any of these given, the user has an opinion on compilation and graphs, and a second one would contradict it.
_OPINIONS = (
    "--optimization-level",
    "-O",
    "--enforce-eager",
    "--compilation-config",
    "-cc",
    "--cudagraph-capture-sizes",
    "--max-cudagraph-capture-size",
)

PREFETCH_SHARE = 0.5
"""Of the host's free memory: weights up to so much are read ahead of vLLM, by vLLM's own threads."""

_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",  # compiled graphs, autotuning, and the start-up plan
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}


def profile_args(profile: StartProfile, user_args: Sequence[str]) -> list[str]:
    """The flags of a profile, unless the user has set any of the kind.

    Args:
        profile: which.
        user_args: of the engine, the model, and vLLM's own configuration file.
    """
    if any(_has_opinion(argument) for argument in user_args):
        return []
    return list(_FLAGS[profile])


def _has_opinion(argument: str) -> bool:
    name = argument.partition("=")[0].replace("_", "-")
    # `-O3` and `-cc.mode=3` are one word.
    return name in _OPINIONS or name.startswith(("-O", "-cc.", "--compilation-config."))


def prefetch_args(size_bytes: int, free_bytes: int) -> list[str]:
    """Whether vLLM reads the files with threads of its own before it needs them.

    Args:
        size_bytes: of the weights.
        free_bytes: of the host's memory, which holds them meanwhile.
    """
    if size_bytes > PREFETCH_SHARE * free_bytes:
        return []
    return ["--safetensors-load-strategy", "prefetch"]


def template_args(folder: Path, names: AbstractSet[str], user_args: Sequence[str]) -> list[str]:
    """Names the chat template that the tokenizer would load from the folder anyway.

    Unless it is told one, vLLM 0.32 looks for a processor with a template first (`renderers/hf.py`), which
    reads a text model's tokenizer a second time: 0.45 s of 3.9 s to the first answer, warm.

    Args:
        folder: the model's.
        names: of the files in it.
        user_args: of the engine, the model, vLLM's own configuration file, and what is certain of the family.
    """
    # Named templates are chosen among by request; a processor's own may differ; Mistral's tokenizer has one.
    others = ("additional_chat_templates", "chat_template.json", "processor_config.json", "tekken.json")
    if "chat_template.jinja" not in names or not names.isdisjoint(others):
        return []
    if any(is_set(user_args, flag) for flag in ("--chat-template", "--tokenizer", "--tokenizer-mode")):
        return []
    return ["--chat-template", str(folder / "chat_template.jinja")]


def cache_environment(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Everything that is compiled once, under one folder that outlives workers and containers.

    With `VLLM_ENABLE_STARTUP_PLAN` vLLM remembers how large the KV cache was the last time that this model
    ran on this device, and does not measure it again while as much memory is free.

    Args:
        folder: for the caches.
        environment: what workers inherit; a cache that is set there stays where it is.
    """
    caches = {name: str(folder / below) for name, below in _CACHES.items() if name not in environment}
    return caches | {"VLLM_ENABLE_STARTUP_PLAN": environment.get("VLLM_ENABLE_STARTUP_PLAN", "1")}
