"""Contenders taking turns, and what their figures make together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.proxy.programs import Contender


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of several contenders, a value of each per round.

    Attributes:
        values: by the contender's name.
    """

    values: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Over the rounds."""
        return statistics.median(self.values[name])

    def ratio(self, name: str, beside: str) -> Spread:
        """Of two contenders, round by round."""
        return Spread([a / b for a, b in zip(self.values[name], self.values[beside], strict=True)])

    def difference(self, name: str, beside: str) -> Spread:
        """Of two contenders, round by round."""
        return Spread([a - b for a, b in zip(self.values[name], self.values[beside], strict=True)])


@dataclass(frozen=True, slots=True)
class Spread:
    """Values over rounds."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.values)

    def in_words(self, form: str = ".2f") -> str:
        """`0.41 (0.38 to 0.44)`."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:{form}} ({low:{form}} to {high:{form}})"


def in_turn(measure: Callable[[Contender], float], contenders: Sequence[Contender], rounds: int) -> Measured:
    """Measures each contender once a round, after one turn each that does not count.

    Every other round goes backwards, so that none is always the one after the same other.
    """
    for each in contenders:
        measure(each)
    values: dict[str, list[float]] = {each.name: [] for each in contenders}
    for number in range(rounds):
        for each in contenders[:: -1 if number % 2 else 1]:
            values[each.name].append(measure(each))
    return Measured(values)
