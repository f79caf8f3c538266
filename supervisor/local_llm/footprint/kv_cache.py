"""How vLLM 0.32 shares out the memory of its KV cache, in its own arithmetic (`v1/core/kv_cache_utils.py`).

Layers of one sort form groups of equal size, all groups take blocks from one pool, and a block is as large
in every group. So a model with windows or states needs few blocks for most of its layers, and padding for
some. A request's need is the sum over the groups; the log's "KV cache size: N tokens" follows from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from local_llm.footprint.layers import Attention, CrossAttention, Layer, State

_GROUPS_MAY_GROW = 1.5
"""Buckets that differ by less than this factor are padded to the largest rather than split."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """What decides over blocks besides the layers.

    Attributes:
        block_tokens: in a block of attention, before it is enlarged to hold a state.
        in_flight_tokens: that may be computed at the same time; windows keep them too.
        encoder_tokens: of the encoder's output that a request may keep.
        tensor_parallel: devices that share each layer.
    """

    block_tokens: int
    in_flight_tokens: int
    encoder_tokens: int
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True)
class _Spec:
    """How one layer is cached on one device; vLLM's KVCacheSpec.

    Attributes:
        layer: what it keeps.
        block_tokens: in a block of it.
        page_bytes: of a block of it.
    """

    layer: Layer
    block_tokens: int
    page_bytes: int

    @property
    def sort(self) -> object:
        """Layers of the same sort need the same blocks, whatever their size."""
        if isinstance(self.layer, Attention):
            return Attention, self.layer.window, self.block_tokens
        return type(self.layer), self.block_tokens, self.page_bytes

    def blocks(self, context: int, scheme: Scheme, *, hybrid: bool) -> int:
        """That a request of `context` tokens holds at most.

        Args:
            context: of the request.
            scheme: of the cache.
            hybrid: some layers attend; then prefixes are cached, for which a state is kept twice.
        """
        if isinstance(self.layer, State):
            return 2 + self.layer.checkpoints if hybrid else 1
        if isinstance(self.layer, CrossAttention):
            return _ceil(scheme.encoder_tokens, self.block_tokens)
        if self.layer.window is None:
            return _ceil(context, self.block_tokens)
        held = min(self.layer.window - 1 + scheme.in_flight_tokens, context)
        return _ceil(held, self.block_tokens) + 1  # a window rarely begins where a block does


@dataclass(frozen=True, slots=True)
class KvCache:
    """The cache of a model on one device.

    Attributes:
        block_bytes: of one block of the pool, for all layers of a group.
        groups: one spec for each group of layers.
        hybrid: some layers attend. In a pure state-space model none does, and no prefix is cached.
        scheme: what it was made for.
    """

    block_bytes: int
    groups: tuple[_Spec, ...]
    hybrid: bool
    scheme: Scheme

    def blocks(self, context: int) -> int:
        """That one request of `context` tokens needs."""
        return sum(group.blocks(context, self.scheme, hybrid=self.hybrid) for group in self.groups)

    def request_bytes(self, context: int) -> int:
        """That one request of `context` tokens needs, and the block that vLLM holds back."""
        return (self.blocks(context) + 1) * self.block_bytes if self.groups else 0

    def tokens(self, room_bytes: int, context: int) -> int:
        """What vLLM's log calls the size of the cache: how many tokens of requests of `context` fit.

        Args:
            room_bytes: for the cache.
            context: the longest request.
        """
        blocks = self.blocks(context)
        return room_bytes // self.block_bytes * context // blocks if blocks else 0

    def longest(self, room_bytes: int, limit: int) -> int:
        """The longest context that fits, up to `limit`; 0 if not one token does."""
        shortest, longest = 0, limit
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if self.request_bytes(middle) <= room_bytes:
                shortest = middle
            else:
                longest = middle - 1
        return shortest


def kv_cache(layers: Sequence[Layer], scheme: Scheme) -> KvCache:
    """The cache that vLLM makes for these layers."""
    counts = Counter(layers)
    specs = _specs(counts, scheme)
    hybrid = any(not isinstance(layer, State) for layer in counts)
    if not specs:
        return KvCache(0, (), hybrid, scheme)
    if len({spec.sort for spec in specs}) == 1:
        size = sum(count * spec.page_bytes for spec, count in specs.items())
        return KvCache(size, (next(iter(specs)),), hybrid, scheme)
    groups = _grouped(_of_one_page_size(specs))
    largest = max(count * spec.page_bytes for spec, count in groups)
    return KvCache(largest, tuple(spec for spec, _ in groups), hybrid, scheme)


def _specs(counts: Counter[Layer], scheme: Scheme) -> Counter[_Spec]:
    """With states beside attention, a block of attention is made large enough to hold one state."""
    parallel = scheme.tensor_parallel
    states = [layer.device_bytes(parallel) for layer in counts if isinstance(layer, State)]
    tokens = [layer.token_bytes(parallel) for layer in counts if not isinstance(layer, State)]
    block_tokens, state_bytes = scheme.block_tokens, max(states, default=0)
    if states and tokens:
        block_tokens *= max(1, _ceil(state_bytes, block_tokens * max(tokens)))
        state_bytes = max(state_bytes, block_tokens * max(tokens))
    specs: Counter[_Spec] = Counter()
    for layer, count in counts.items():
        size = state_bytes if isinstance(layer, State) else block_tokens * layer.token_bytes(parallel)
        specs[_Spec(layer, block_tokens, size)] += count
    return specs


def _of_one_page_size(specs: Counter[_Spec]) -> Counter[_Spec]:
    """Smaller pages hold more tokens if that comes out even, else they are padded."""
    largest = max(spec.page_bytes for spec in specs)
    unified: Counter[_Spec] = Counter()
    for spec, count in specs.items():
        even = not isinstance(spec.layer, State) and largest % spec.page_bytes == 0
        block_tokens = spec.block_tokens * (largest // spec.page_bytes) if even else spec.block_tokens
        unified[replace(spec, block_tokens=block_tokens, page_bytes=largest)] += count
    return unified


def _grouped(specs: Counter[_Spec]) -> list[tuple[_Spec, int]]:
    """Groups of about equal size, with the number of layers in the largest of each spec."""
    fewest, most = min(specs.values()), max(specs.values())
    size = most if most < fewest * _GROUPS_MAY_GROW else fewest
    groups: list[tuple[_Spec, int]] = []
    for spec, count in specs.items():
        number = _ceil(count, size)
        groups += number * [(spec, _ceil(count, number))]
    return groups


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
