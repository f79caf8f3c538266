"""Where a model goes: on how many of these devices, with what context, or why nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local_llm import gpu, model_gpus
from local_llm.arguments import in_config_file, is_set, value_of
from local_llm.catalog.card import Engine, ModelCard
from local_llm.footprint.budget import Budget, cpu_budget, gpu_budget
from local_llm.footprint.footprint import Footprint, Shape
from local_llm.footprint.quantization import in_words
from local_llm.gpu import Device, in_gib
from local_llm.settings import Settings

USEFUL_CONTEXT = 8192
"""A model is spread over more devices rather than be left with a shorter context than this."""

SHRINKING_FLAGS = ("--cpu-offload-gb", "--quantization", "-q", "--load-format", "--hf-overrides")
"""With these, the weights take less of the device than their files say, or nothing."""

_OTHER_LAYOUTS = ("--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")
_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
_SHOWN_FROM_BYTES = (1 << 30) // 20  # less would be shown as 0.0 GiB


@dataclass(frozen=True, slots=True)
class Placement:
    """It fits.

    Attributes:
        devices: those that it uses; none: the CPU computes.
        tensor_parallel: over how many devices each layer is spread.
        context: the longest context that fits, in tokens; None if unknown, or the engine has no such thing.
        full_context: the longest that the model is made for; None likewise.
        kv_tokens: what the KV cache holds of all requests together; None likewise.
        weights_bytes: on each device.
        kv_bytes: for the KV cache, on each device; 0 if unknown.
        overhead_bytes: an estimate of activations and graphs, on each device.
        notes: for people.
    """

    devices: tuple[Device, ...]
    tensor_parallel: int = 1
    context: int | None = None
    full_context: int | None = None
    kv_tokens: int | None = None
    weights_bytes: int = 0
    kv_bytes: int = 0
    overhead_bytes: int = 0
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for people."""
        where = f"{len(self.devices)} x {self.devices[0].name}" if self.devices else "the CPU"
        parts = [f"on {where}: {in_gib(self.weights_bytes)} of weights"]
        if self.overhead_bytes:
            parts.append(f"about {in_gib(self.overhead_bytes)} for activations and graphs")
        if self.kv_tokens is not None:
            parts.append(f"{in_gib(self.kv_bytes)} for {self.kv_tokens:,} tokens of KV cache")
        if self.context is not None:
            of = (
                f" of {self.full_context:,}" if self.full_context and self.full_context > self.context else ""
            )
            parts.append(f"context {self.context:,}{of}")
        return ", ".join(parts) + (" each" if len(self.devices) > 1 else "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """It does not fit.

    Attributes:
        reason: a sentence with the numbers, to follow "The model 'x' ".
    """

    reason: str


def place(
    footprint: Footprint,
    card: ModelCard,
    devices: Sequence[Device],
    settings: Settings,
    *,
    free: bool = False,
) -> Placement | Refusal:
    """Decides where a model goes. An estimate: vLLM's own figure at launch is exact.

    Args:
        footprint: the model's.
        card: the model.
        devices: that its worker will see, in CUDA's order; none means that the CPU computes.
        settings: all of them.
        free: what others hold of the devices now is not there; else they are taken to be empty.
    """
    card = card.runs_as
    engine, model = settings.engine_settings(card.engine), settings.model_settings(card.id)
    args = (*engine.args, *model.args)
    if card.engine is Engine.COMMAND:
        return Placement(tuple(devices), notes=("what its command needs is not known",))
    if card.engine is Engine.TRANSFORMERS:
        return _on_first(footprint, devices)
    args = (*in_config_file(args), *args)
    if any(is_set(args, flag) for flag in (*SHRINKING_FLAGS, *_OTHER_LAYOUTS)):
        return Placement(tuple(devices), notes=("its arguments change what it needs, so that is not judged",))
    context = _demanded(args) or model.context
    if not devices:
        return _on_cpu(footprint, _cpu_budget(args, {**engine.env, **model.env}, settings), context)
    weak = too_weak(footprint, devices)
    if weak is not None:
        return weak
    said = value_of(args, "--tensor-parallel-size", "-tp")
    fixed = int(said) if said is not None and said.isdecimal() and len(said) < 6 else model_gpus.count(model)
    reserve_bytes = settings.engines.vllm.gpu_memory_reserve_bytes
    tried = []
    for parallel in _parallel_sizes(footprint.shape, len(devices), fixed):
        used = tuple(devices[:parallel])
        budget = gpu_budget(args, used, reserve_bytes, free=free)
        tried.append(_attempt(footprint, used, budget, context))
    return _best(tried, min(context or USEFUL_CONTEXT, footprint.context_length or USEFUL_CONTEXT))


def _parallel_sizes(shape: Shape, most: int, fixed: int | None) -> Sequence[int]:
    """Those that vLLM's layers can be divided by."""
    if fixed is not None:
        return (min(max(fixed, 1), most),)
    if not shape.heads:
        return (1,) if most == 1 else (1, most)
    return [size for size in range(1, most + 1) if divides(shape, size)]


def divides(shape: Shape, size: int) -> bool:
    """Whether heads and feed-forward part can be shared by so many devices.

    Heads of keys and values are shared, or each is copied to as many devices as the others.
    """
    kv_heads = shape.kv_heads or size
    even = kv_heads % size == 0 or size % kv_heads == 0
    return shape.heads % size == 0 and even and shape.intermediate % size == 0


def _attempt(
    footprint: Footprint, devices: tuple[Device, ...], budget: Budget, context: int | None
) -> Placement | Refusal:
    """On exactly these devices."""
    parallel, shape, full = len(devices), footprint.shape, footprint.context_length
    weights_bytes = -(-footprint.weights.loaded_bytes // parallel)
    room_bytes = budget.device_bytes - weights_bytes
    cache = footprint.kv_cache(budget.scheme(shape, context or full or USEFUL_CONTEXT, parallel))
    shortest_bytes = 0 if cache is None else cache.request_bytes(context or 1)
    if room_bytes < shortest_bytes:
        return Refusal(_shortage(weights_bytes, shortest_bytes, context, devices, budget))
    overhead_bytes = budget.overhead_bytes(shape, parallel)
    notes = footprint.notes
    # vLLM may get by with less than the estimate: that alone refuses nothing.
    kv_bytes = room_bytes - overhead_bytes
    if kv_bytes < shortest_bytes:
        kv_bytes = room_bytes
        notes += ("it is tight: there may be too little left for activations",)
    found = Placement(devices, parallel, None, full, None, weights_bytes, 0, overhead_bytes, notes)
    return found if cache is None else _with_cache(found, footprint, budget, kv_bytes, context)


def _with_cache(
    found: Placement, footprint: Footprint, budget: Budget, kv_bytes: int, context: int | None
) -> Placement:
    """Works out the context, with the arithmetic that vLLM has for `--max-model-len auto`."""
    full = footprint.context_length or USEFUL_CONTEXT
    limit = context or full
    parallel = found.tensor_parallel
    cache = footprint.kv_cache(budget.scheme(footprint.shape, limit, parallel))
    assert cache is not None  # noqa: S101 - asked for only where there is one
    longest = context or cache.longest(kv_bytes, limit)
    return Placement(
        devices=found.devices,
        tensor_parallel=parallel,
        context=longest,
        full_context=footprint.context_length,
        kv_tokens=cache.tokens(kv_bytes, longest) if longest else 0,
        weights_bytes=found.weights_bytes,
        kv_bytes=kv_bytes,
        overhead_bytes=found.overhead_bytes,
        notes=found.notes,
    )


def _best(tried: Sequence[Placement | Refusal], useful: int) -> Placement | Refusal:
    """The first, which is the smallest, with a useful context; else the longest; else the last refusal."""
    placed = [each for each in tried if isinstance(each, Placement)]
    if not placed:
        return tried[-1]
    for each in placed:
        if each.context is None or each.context >= useful:
            return each
    return max(placed, key=lambda each: each.context or 0)


def _shortage(
    weights_bytes: int, shortest_bytes: int, context: int | None, devices: Sequence[Device], budget: Budget
) -> str:
    count = len(devices)
    smallest = min(devices, key=lambda device: device.total_bytes)
    what = f"a context of {context:,} tokens" if context else "the shortest context"
    kv = f" and {in_gib(shortest_bytes)} for {what}" if shortest_bytes > _SHOWN_FROM_BYTES else ""
    return (
        f"needs {in_gib(weights_bytes)} for its weights{kv} on each of {count} device{'s'[: count > 1]}; "
        f"{smallest.name} has {in_gib(smallest.total_bytes)}, of which vLLM is given "
        f"{in_gib(budget.device_bytes)}."
    )


def too_weak(footprint: Footprint, devices: Sequence[Device]) -> Refusal | None:
    """The compute capability that the quantization demands, where both are known."""
    quantization = footprint.quantization
    if quantization is None or quantization.least_capability is None:
        return None
    for device in devices:
        if device.capability is not None and device.capability < quantization.least_capability:
            return Refusal(
                f"is quantized with {quantization.title}, for which vLLM needs a GPU of compute capability "
                f"{in_words(quantization.least_capability)}; {device.name} has {in_words(device.capability)}."
            )
    return None


def _on_first(footprint: Footprint, devices: Sequence[Device]) -> Placement | Refusal:
    """The servers made of transformers use the first device alone, or the CPU."""
    weights_bytes = footprint.weights.loaded_bytes
    first = tuple(devices[:1])
    total_bytes = first[0].total_bytes if first else gpu.host_memory().total_bytes
    if weights_bytes > total_bytes:
        name = first[0].name if first else "this machine (no GPU)"
        return Refusal(f"needs {in_gib(weights_bytes)} for its weights; {name} has {in_gib(total_bytes)}.")
    return Placement(first, weights_bytes=weights_bytes, notes=footprint.notes)


def _on_cpu(footprint: Footprint, budget: Budget, context: int | None) -> Placement | Refusal:
    """The cache is as large as the settings say, beside the weights."""
    weights_bytes, total_bytes = footprint.weights.loaded_bytes, gpu.host_memory().total_bytes
    if weights_bytes + budget.device_bytes > total_bytes:
        return Refusal(
            f"needs {in_gib(weights_bytes)} for its weights and {in_gib(budget.device_bytes)} for the KV "
            f"cache (engines.vllm.cpu_kv_cache_gib); this machine (no GPU) has {in_gib(total_bytes)}."
        )
    full = footprint.context_length
    cache = footprint.kv_cache(budget.scheme(footprint.shape, context or full or USEFUL_CONTEXT, 1))
    if cache is not None and cache.request_bytes(context or 1) > budget.device_bytes:
        what = f"a context of {context:,} tokens" if context else "even the shortest context"
        return Refusal(
            f"needs {in_gib(cache.request_bytes(context or 1))} of KV cache for {what}, and there are "
            f"{in_gib(budget.device_bytes)}: raise engines.vllm.cpu_kv_cache_gib."
        )
    found = Placement((), full_context=full, weights_bytes=weights_bytes, notes=footprint.notes)
    return found if cache is None else _with_cache(found, footprint, budget, budget.device_bytes, context)


def _cpu_budget(args: Sequence[str], env: dict[str, str], settings: Settings) -> Budget:
    stated = env.get(_KV_SPACE, "")
    gib = (
        int(stated) if stated.isdecimal() and 0 < len(stated) < 6 else settings.engines.vllm.cpu_kv_cache_gib
    )
    return cpu_budget(args, gib << 30)


def _demanded(args: Sequence[str]) -> int | None:
    """The context that --max-model-len asks for; None for `auto`."""
    said = (value_of(args, "--max-model-len") or "").lower()
    factor = {"k": 1000, "m": 1000_000}.get(said[-1:], 1)
    digits = said[:-1] if factor > 1 else said
    return int(digits) * factor if digits.isdecimal() and len(digits) < 10 and int(digits) else None
