"""What one layer of a model keeps for a request while it is answered, as vLLM 0.32 allocates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Attention:
    """Keys and values of every token, or of the last `window` ones.

    Attributes:
        heads: for keys and values, of the whole model. Devices share them; no device has none.
        head_bytes: of one token and head, keys and values together.
        window: in tokens; None for the whole context.
    """

    heads: int
    head_bytes: int
    window: int | None = None

    def token_bytes(self, tensor_parallel: int) -> int:
        """Of one token on one device."""
        return max(1, self.heads // tensor_parallel) * self.head_bytes


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Keys and values of the encoder's output, such as of 30 seconds of sound; fields as of `Attention`."""

    heads: int
    head_bytes: int

    def token_bytes(self, tensor_parallel: int) -> int:
        """Of one position on one device."""
        return max(1, self.heads // tensor_parallel) * self.head_bytes


@dataclass(frozen=True, slots=True)
class State:
    """A state of fixed size: state-space layers, linear attention, short convolutions.

    Attributes:
        bytes_in_all: of the whole model's layer.
        group_bytes: of one group, of which every device has at least one.
        groups: how many there are; their bytes are in `bytes_in_all`.
        checkpoints: further copies that a request may hold while its prompt is read.
    """

    bytes_in_all: int
    group_bytes: int = 0
    groups: int = 0
    checkpoints: int = 0

    def device_bytes(self, tensor_parallel: int) -> int:
        """On one device."""
        copies = tensor_parallel - self.groups if self.groups % tensor_parallel else 0
        return -(-(self.bytes_in_all + max(0, copies) * self.group_bytes) // tensor_parallel)


Layer: TypeAlias = Attention | CrossAttention | State


class UnknownLayers(Exception):
    """config.json does not say what its layers keep, or in a way that is not known here; the reason."""


@dataclass(frozen=True, slots=True)
class ValueBytes:
    """How many bytes one number of each sort takes.

    Attributes:
        model: of activations, and of a convolution's state.
        kv: of cached keys and values.
        recurrent: of a recurrent state; None: as the family has it.
    """

    model: int
    kv: int
    recurrent: int | None = None
