"""Contenders in turn, round after round, and what the rounds say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from benchmarks.embed import texts
from benchmarks.embed.contenders import Contender


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked in each round.

    Attributes:
        figure: in words.
        texts: one a client.
        times: that each client asks.
        in_step: nobody asks again before everybody has an answer.
    """

    figure: str
    texts: Sequence[str]
    times: int
    in_step: bool = False

    @property
    def embeddings(self) -> int:
        return len(self.texts) * self.times


SHORT = Workload("64 clients with one short text each, asked again when answered", texts.short(), 8)
BURSTS = Workload("the same in bursts: 64 at once, then all wait for all", texts.short(), 8, in_step=True)
MIXED = Workload("64 clients, texts of 3 to 220 words", texts.mixed(), 2)
ONE = Workload("one client, one short text after another", texts.short()[:1], 40)

WORKLOADS = (SHORT, BURSTS, MIXED, ONE)


@dataclass(slots=True)
class Measured:
    """One contender's rounds of one workload.

    Attributes:
        rates: embeddings a second, round by round.
        cpu_seconds: of its processes, all rounds together.
        client_seconds: of this process, likewise.
    """

    rates: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    client_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """The median."""
        return median(self.rates)

    def cpu_milliseconds(self, workload: Workload) -> float:
        """Of CPU time for one embedding."""
        return 1000 * self.cpu_seconds / (len(self.rates) * workload.embeddings)


Table = dict[str, dict[str, Measured]]
"""By the workload's figure, then by the contender's name."""


async def measure(contenders: Sequence[Contender], rounds: int) -> Table:
    """Every contender's turn at every workload, so many times over."""
    table: Table = {
        each.figure: {contender.name: Measured() for contender in contenders} for each in WORKLOADS
    }
    for number in range(rounds):
        began = time.monotonic()
        for workload in WORKLOADS:
            for contender in contenders:
                await _take_turn(contender, workload, table[workload.figure][contender.name])
        print(f"   round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", flush=True)
    return table


async def _take_turn(contender: Contender, workload: Workload, measured: Measured) -> None:
    cpu, own = contender.cpu_seconds(), time.process_time()
    seconds = await contender.embed(workload.texts, workload.times, in_step=workload.in_step)
    measured.rates.append(workload.embeddings / seconds)
    measured.cpu_seconds += contender.cpu_seconds() - cpu
    measured.client_seconds += time.process_time() - own


@dataclass(frozen=True, slots=True)
class Ratio:
    """One contender's rate beside another's of the same round: the median, and the middle half's ends."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Measured, other: Measured) -> Ratio:
        ratios = [a / b for a, b in zip(ours.rates, other.rates, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return cls(middle, low, high)
