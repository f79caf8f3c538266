"""What vLLM may take of each device, and what it takes besides weights and cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from local_llm.arguments import value_of
from local_llm.footprint.footprint import Shape
from local_llm.footprint.kv_cache import Scheme
from local_llm.gpu import Device

MOST_UTILIZATION = 0.92
"""vLLM's own default. Above it, what it does not count (CUDA contexts, NCCL, fragmentation) has no room."""

_GIB = 1 << 30
_GRAPHS_BYTES = _GIB * 3 // 10
"""Of captured graphs for batches of up to 64, and of libraries' workspaces; others report 0.1-0.5 GiB."""

_CPU_BLOCK, _GPU_BLOCK, _CPU_LATENT_BLOCK, _GPU_LATENT_BLOCK = 128, 16, 16, 64
_CPU_BATCH_TOKENS = 2048
_CPU_SEQUENCES, _GPU_SEQUENCES = 128, 256
_ASYNC_STEPS = 2
"""On a GPU vLLM schedules a step while the one before it still runs."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What the arguments and the devices give.

    Attributes:
        device_bytes: that vLLM takes of each device, of those it uses the smallest.
        batch_tokens: computed in one step.
        sequences: answered in one step.
        steps: under way at the same time.
        block_tokens: as said by the arguments; None: by the kind of attention.
    """

    device_bytes: int
    batch_tokens: int
    sequences: int
    steps: int
    block_tokens: int | None

    def scheme(self, shape: Shape, context: int, tensor_parallel: int) -> Scheme:
        """How vLLM would share out a KV cache for requests of up to `context` tokens."""
        latent, on_gpu = shape.heads > 0 and shape.kv_heads == 0, self.steps > 1
        default = {
            (False, False): _CPU_BLOCK,
            (False, True): _GPU_BLOCK,
            (True, False): _CPU_LATENT_BLOCK,
            (True, True): _GPU_LATENT_BLOCK,
        }[latent, on_gpu]
        batch = min(self.batch_tokens, self.sequences * context)
        return Scheme(self.block_tokens or default, self.steps * batch, batch, tensor_parallel)

    def overhead_bytes(self, shape: Shape, tensor_parallel: int) -> int:
        """An estimate of activations and graphs on each device: no config says how a kernel works."""
        if self.steps == 1:
            return 0  # the host's memory is not shared out beforehand
        widths = 6 * shape.hidden + 3 * shape.intermediate // tensor_parallel
        logits = self.sequences * shape.vocabulary * 8  # float32, and a copy to sample from
        return _GRAPHS_BYTES + self.batch_tokens * widths * 2 + logits


def cpu_budget(args: Sequence[str], kv_bytes: int) -> Budget:
    """Without a GPU `device_bytes` is for the cache alone."""
    stated = value_of(args, "--kv-cache-memory-bytes")
    return Budget(
        int(stated) if stated is not None and stated.isdecimal() and len(stated) < 20 else kv_bytes,
        _number(args, "--max-num-batched-tokens") or _CPU_BATCH_TOKENS,
        _number(args, "--max-num-seqs") or _CPU_SEQUENCES,
        1,
        _number(args, "--block-size"),
    )


def gpu_budget(args: Sequence[str], devices: Sequence[Device], reserve_bytes: int, *, free: bool) -> Budget:
    """Of the devices that one worker would use.

    Args:
        args: the user's.
        devices: at least one.
        reserve_bytes: left to others, on each.
        free: what others hold now is taken off.
    """
    return Budget(
        min(share_bytes(args, device, reserve_bytes, free=free) for device in devices),
        _number(args, "--max-num-batched-tokens") or _batch_tokens(devices[0]),
        _number(args, "--max-num-seqs") or _GPU_SEQUENCES,
        _ASYNC_STEPS,
        _number(args, "--block-size"),
    )


def share_bytes(args: Sequence[str], device: Device, reserve_bytes: int, *, free: bool) -> int:
    """What vLLM is given of a device."""
    stated = value_of(args, "--gpu-memory-utilization")
    try:
        share = float(stated) if stated is not None else math.nan
    except ValueError:
        share = math.nan
    if 0 < share <= 1:
        return int(share * device.total_bytes)
    there = device.free_bytes if free else device.total_bytes
    return max(0, min(there - reserve_bytes, int(MOST_UTILIZATION * device.total_bytes)))


def _batch_tokens(device: Device) -> int:
    """vLLM's defaults for a server (`get_batch_defaults`)."""
    if device.total_bytes >= 160 * _GIB:
        return 16384
    return 8192 if device.total_bytes >= 70 * _GIB and "a100" not in device.name.lower() else 2048


def _number(args: Sequence[str], flag: str) -> int | None:
    value = value_of(args, flag)
    return (
        int(value) if value is not None and value.isdecimal() and 0 < len(value) < 10 and int(value) else None
    )
