"""Which inputs are computed together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm_worker.pooling.batching import BatchLimits, choose_batch

WIDE = BatchLimits(max_tokens=10_000, max_padding=10_000)


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
    ],
)
def test_choice(lengths: list[int], limits: BatchLimits, expected: list[int]) -> None:
    """The first in line is always chosen; others by length, within the limits."""
    assert choose_batch(lengths, limits) == expected


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=80),
    st.integers(1, 4096),
    st.integers(0, 2048),
)
def test_limits_hold(lengths: list[int], max_tokens: int, max_padding: int) -> None:
    """Whatever waits: no input twice, the first one in, and no batch of several over a limit."""
    chosen = choose_batch(lengths, BatchLimits(max_tokens, max_padding))

    assert chosen[0] == 0
    assert len(set(chosen)) == len(chosen)
    if len(chosen) > 1:
        padded = len(chosen) * max(lengths[place] for place in chosen)
        assert padded <= max_tokens
        assert padded - sum(lengths[place] for place in chosen) <= max_padding
