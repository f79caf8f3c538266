"""The command line of a vLLM worker.

Pure but for what the user gave vLLM with `--config`, the names of the files in the model's folder, and,
with several GPUs, what these files hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from local_llm import model_gpus
from local_llm.arguments import in_config_file, is_set, number_of, value_of
from local_llm.catalog.card import ModelCard
from local_llm.catalog.files import names_or_none
from local_llm.footprint.budget import MOST_UTILIZATION
from local_llm.footprint.parallel import tensor_parallel_size
from local_llm.gpu import Device, host_memory
from local_llm.settings import Settings
from local_llm.worker import vllm_start
from local_llm.worker.adapter_args import adapter_args
from local_llm.worker.audio import audio_args
from local_llm.worker.family_args import args_of_family
from local_llm.worker.launch import HOST, Identity

# Below it vLLM's own message, which says how much is free, is the best answer.
_LEAST_UTILIZATION = 0.05


def vllm_args(
    identity: Identity, settings: Settings, devices: Sequence[Device], user_args: Sequence[str]
) -> list[str]:
    """Arguments for the Python that has vLLM.

    Args:
        identity: names the model and the port.
        settings: all of them.
        devices: the GPUs that the worker will see, in CUDA's order; none means that the CPU computes.
        user_args: those of the engine's and the model's settings, which follow these.
    """
    card = identity.card
    model = settings.model_settings(card.id)
    user_args = [*in_config_file(user_args), *user_args]
    args = ["-m", "local_llm_worker.vllm_serve", str(card.path.absolute())]
    args += ["--served-model-name", *card.served_names]
    args += ["--host", HOST, "--port", str(identity.port)]
    args += ["--middleware", "local_llm_worker.key_guard.KeyGuard"]
    args += audio_args(card)
    args += vllm_start.template_args(card.path.absolute(), names_or_none(str(card.path)), user_args)
    if not is_set(user_args, "--max-model-len"):
        # The model's own context if it fits, else the longest that does: it comes up on a desktop GPU.
        args += ["--max-model-len", "auto" if model.context is None else str(model.context)]
    if model.dtype is not None and not is_set(user_args, "--dtype"):
        args += ["--dtype", model.dtype]
    args += _spread_args(card, settings, devices, user_args)
    args += args_of_family(card, settings, user_args)
    if model.trust_remote_code and not is_set(user_args, "--trust-remote-code"):
        args.append("--trust-remote-code")
    if not is_set(user_args, "--disable-uvicorn-access-log"):
        # The supervisor logs every request; these lines would only push the telling ones out of the
        # last lines that a failure shows. (Prompts are logged by neither, unless the user asks vLLM to.)
        args.append("--disable-uvicorn-access-log")
    args += adapter_args(card, user_args)
    if devices:
        used = devices[: _gpus_used([*args, *user_args])]
        return args + _gpu_args(card, settings, used, user_args)
    if not is_set(user_args, "--enforce-eager"):
        # vLLM 0.32 compiled for the CPU answers wrong text (seen with SmolLM2-135M); eager is right.
        args.append("--enforce-eager")
    return args


def _spread_args(
    card: ModelCard, settings: Settings, devices: Sequence[Device], user_args: Sequence[str]
) -> list[str]:
    """Over how many GPUs: as the user says, else as many as it needs."""
    if value_of(user_args, "--tensor-parallel-size", "-tp") is not None:
        return []
    gpus = model_gpus.count(settings.model_settings(card.id))
    if gpus is None and (fitting := tensor_parallel_size(card, settings, devices)) > 1:
        gpus = fitting
    return [] if gpus is None else ["--tensor-parallel-size", str(gpus)]


def _gpu_args(
    card: ModelCard, settings: Settings, used: Sequence[Device], user_args: Sequence[str]
) -> list[str]:
    args: list[str] = []
    if not is_set(user_args, "--gpu-memory-utilization"):
        share = gpu_memory_utilization(used, settings.engines.vllm.gpu_memory_reserve_bytes)
        args += ["--gpu-memory-utilization", f"{share:.3f}"]
    start = settings.model_settings(card.id).start or settings.engines.vllm.start
    args += vllm_start.profile_args(start, user_args)
    if not is_set(user_args, "--safetensors-load-strategy"):
        args += vllm_start.prefetch_args(card.size_bytes, host_memory().free_bytes)
    return args


def _gpus_used(args: Sequence[str]) -> int:
    """How many GPUs one worker spreads over, by its arguments."""
    return number_of(args, "--tensor-parallel-size", "-tp") * number_of(
        args, "--pipeline-parallel-size", "-pp"
    )


def gpu_memory_utilization(devices: Sequence[Device], reserve_bytes: int) -> float:
    """vLLM's share of the memory of each device: what is free now less a reserve.

    vLLM's default of 0.92 refuses to start when less is free, as on every GPU that also drives a
    desktop. The reserve also covers vLLM's own CUDA context, which exists before it looks.

    Args:
        devices: those that the worker will use, at least one; the fullest decides.
        reserve_bytes: left to others, on each.

    Returns:
        a share between 0.05 and 0.92, rounded down to thousandths.
    """
    share = min((each.free_bytes - reserve_bytes) / each.total_bytes for each in devices)
    return min(max(math.floor(share * 1000) / 1000, _LEAST_UTILIZATION), MOST_UTILIZATION)
