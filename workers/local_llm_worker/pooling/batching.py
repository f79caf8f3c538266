"""Which of the waiting inputs are computed together. Pure: lengths in, places out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        max_tokens: computed in one batch at most, padding included.
        max_padding: tokens of padding that cost less than a batch of its own would. A batch on a CPU costs
            about as much as 60 tokens before its first token (MiniLM), on a GPU far more.
    """

    max_tokens: int
    max_padding: int


def choose_batch(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Chooses the first input, which has waited longest, and those nearest to it in length.

    Args:
        lengths: tokens of each waiting input, in order of arrival; at least one.
        limits: the first input is chosen even if it alone exceeds them.

    Returns:
        Places in `lengths`, the first one first.
    """
    first = lengths[0]
    by_distance = sorted(range(1, len(lengths)), key=lambda place: abs(lengths[place] - first))
    chosen, longest, real_tokens = [0], first, first
    for place in by_distance:
        longest = max(longest, lengths[place])
        real_tokens += lengths[place]
        padded_tokens = longest * (len(chosen) + 1)
        if padded_tokens > limits.max_tokens or padded_tokens - real_tokens > limits.max_padding:
            break
        chosen.append(place)
    return chosen
