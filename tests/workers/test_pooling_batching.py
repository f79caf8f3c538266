"""Which inputs are computed together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm_worker.pooling.batching import BatchLimits, choose_batch

WIDE = BatchLimits(max_tokens=10_000, batch_cost=10_000)


@pytest.mark.parametrize(
    ("lengths", "limits", "expected"),
    [
        ([5], WIDE, [0]),
        ([5, 5, 5], WIDE, [0, 1, 2]),
        ([5, 9, 6], WIDE, [0, 2, 1]),  # nearest in length first
        ([7, 7, 7], BatchLimits(14, 0), [0, 1]),  # the earliest of equals
        ([10, 10], BatchLimits(19, 100), [0]),
        ([100, 1], BatchLimits(50, 100), [0]),  # too long alone, computed alone
        ([4, 6], BatchLimits(11, 100), [0]),  # padding counts: 2 x 6
        ([4, 6], BatchLimits(12, 100), [0, 1]),
        ([50, 4, 5, 51], BatchLimits(10_000, 8), [0, 3]),  # padding dearer than a batch of its own
        ([8, 8, 8, 8, 12], BatchLimits(10_000, 17), [0, 1, 2, 3, 4]),  # cheaper than a rest of one input
        ([8, 8, 8, 8, 12], BatchLimits(10_000, 15), [0, 1, 2, 3]),
        ([12, 8, 8, 8, 8], BatchLimits(10_000, 15), [0]),
    ],
)
def test_choice(lengths: list[int], limits: BatchLimits, expected: list[int]) -> None:
    """The first in line is always chosen; others by length, within the limits."""
    assert choose_batch(lengths, limits) == expected


@given(st.lists(st.integers(1, 600), min_size=1, max_size=80), st.integers(1, 4096), st.integers(0, 2048))
def test_limits_hold(lengths: list[int], max_tokens: int, batch_cost: int) -> None:
    """Whatever waits: no input twice, the first one in, and no batch of several over the budget."""
    chosen = choose_batch(lengths, BatchLimits(max_tokens, batch_cost))

    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen)
    if len(chosen) > 1:
        assert len(chosen) * max(lengths[place] for place in chosen) <= max_tokens


@given(st.lists(st.integers(1, 30), min_size=1, max_size=7), st.integers(0, 60))
def test_nothing_is_cheaper(lengths: list[int], batch_cost: int) -> None:
    """Batch after batch, all that waits costs no more than in the best way of cutting it into ranges."""
    rest, cost = list(lengths), 0
    while rest:
        chosen = choose_batch(rest, BatchLimits(10_000, batch_cost))
        cost += batch_cost + len(chosen) * max(rest[place] for place in chosen)
        rest = [length for place, length in enumerate(rest) if place not in chosen]

    assert cost == min(_costs(sorted(lengths), batch_cost))


def _costs(rising: list[int], batch_cost: int) -> list[int]:
    """Of every way to cut the lengths into ranges."""
    if not rising:
        return [0]
    return [
        batch_cost + size * rising[-1] + rest
        for size in range(1, len(rising) + 1)
        for rest in _costs(rising[:-size], batch_cost)
    ]
