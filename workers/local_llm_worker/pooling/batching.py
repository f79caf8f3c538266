"""Which of the waiting inputs are computed together. Pure: lengths in, places out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Two bounds of the search, which takes at most 5 ms for 512 inputs: a range of lengths with more padding than
# so many batches cost is hardly ever part of the cheapest way, ...
_MOST_PADDING = 4
# ... and lengths that differ by less than this part of a batch's cost are taken as one.
_GRAIN = 1 / 64


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may be.

    Attributes:
        max_tokens: computed in one batch at most, padding included.
        batch_cost: tokens in whose time a batch begins and ends, however small it is. On a CPU about 60
            (MiniLM), on a GPU far more.
    """

    max_tokens: int
    batch_cost: int


def choose_batch(lengths: Sequence[int], limits: BatchLimits) -> list[int]:
    """Chooses the first input, which has waited longest, and those that are cheapest computed with it.

    Padding costs as much as tokens do, and each batch something by itself: of all ways to cut the waiting
    lengths into ranges the cheapest is found, and the first input's range taken, up to the token budget,
    nearest lengths first.

    Args:
        lengths: tokens of each waiting input, in order of arrival; at least one.
        limits: the first input is chosen even if it alone exceeds them.

    Returns:
        Places in `lengths`, the first one first.
    """
    grain = max(1, int(limits.batch_cost * _GRAIN))
    rounded = [-(-length // grain) * grain for length in lengths]
    ranges = _cheapest_ranges(rounded, limits.batch_cost)
    least, most = next(ends for ends in ranges if rounded[0] <= ends[1])
    alike = (place for place in range(1, len(lengths)) if least <= rounded[place] <= most)
    first = longest = lengths[0]
    chosen = [0]
    for place in sorted(alike, key=lambda place: abs(lengths[place] - first)):
        longest = max(longest, lengths[place])
        if longest * (len(chosen) + 1) > limits.max_tokens:
            break
        chosen.append(place)
    return chosen


def _cheapest_ranges(lengths: Sequence[int], batch_cost: int) -> list[tuple[int, int]]:
    """The ranges (least and most length) that the inputs are computed in, in rising order."""
    counts = Counter(lengths)
    rising = sorted(counts)
    costs, begins = [0], [0]  # of the cheapest way for the first so many lengths; where its last range begins
    for end in range(1, len(rising) + 1):
        cost, begin = min(
            (costs[begin] + padding, begin)
            for begin, padding in _last_ranges(rising, end - 1, counts, batch_cost)
        )
        costs.append(cost + batch_cost)
        begins.append(begin)
    cuts = [len(rising)]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return [(rising[begin], rising[end - 1]) for begin, end in pairwise(reversed(cuts))]


def _last_ranges(
    rising: Sequence[int], last: int, counts: Counter[int], batch_cost: int
) -> Iterator[tuple[int, int]]:
    """Where a range that ends with `rising[last]` may begin, and its padding; nearest first."""
    padding = 0
    for begin in range(last, -1, -1):
        padding += (rising[last] - rising[begin]) * counts[rising[begin]]
        if padding > _MOST_PADDING * batch_cost:
            return
        yield begin, padding
