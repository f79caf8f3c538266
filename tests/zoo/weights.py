"""Safetensors files with true headers and no weights behind them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TypeAlias

from tests.zoo.specimen import Content, Sparse

Tensor: TypeAlias = tuple[str, tuple[int, ...]]
"""Data type, as safetensors calls it, and shape."""
Tensors: TypeAlias = Mapping[str, Tensor]

BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "I64": 64, "I32": 32, "U8": 8, "I8": 8}


def size_bytes(tensor: Tensor) -> int:
    """Of one tensor."""
    return BITS[tensor[0]] * math.prod(tensor[1]) // 8


def file_of(tensors: Tensors) -> Sparse:
    """One safetensors file of these tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + size_bytes(tensor)
        header[name] = {"dtype": tensor[0], "shape": list(tensor[1]), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return Sparse(len(text).to_bytes(8, "little") + text, 8 + len(text) + end)


def files_of(tensors: Tensors, *, shard_bytes: int = 5_000_000_000) -> dict[str, Content]:
    """As transformers saves them: one file, or numbered shards and an index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and size_bytes(tensor) > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= size_bytes(tensor)
    if len(shards) == 1:
        return {"model.safetensors": file_of(shards[0])}
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    index = {
        "metadata": {"total_size": sum(map(size_bytes, tensors.values()))},
        "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    return {
        "model.safetensors.index.json": index,
        **{name: file_of(shard) for name, shard in zip(names, shards, strict=True)},
    }
