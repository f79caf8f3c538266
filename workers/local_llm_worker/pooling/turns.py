"""Whose inputs are computed next, by which lane, and beside whom. Pure: no thread, no model.

A lane is a thread that computes batches. Several small batches side by side, each on cores of its own, take
less time than one after the other on all cores: a batch of short texts has a hundred parallel regions, and
each ends when the slower core has (two cores, MiniLM: 64 clients get 6% more). What comes alone has all.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from local_llm_worker.pooling.batching import BatchLimits, choose_batch
from local_llm_worker.pooling.errors import ComputationFailed, RequestError
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions

Rows = npt.NDArray[np.float32]

# Inputs that a batch is chosen from: enough to find neighbours in length, few enough to sort in passing.
_CANDIDATES = 512
# What has so many times a batch's cost of tokens is shared out: on two cores 16 short texts gain a seventh.
_SHARED_COSTS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gets back.

    Attributes:
        rows: one an input, in their order.
        tokens: of all inputs, padding not counted.
    """

    rows: Rows
    tokens: int


class Job:
    """A request's inputs on their way.

    Attributes:
        future: the event loop's.
        items: of its inputs, once they are tokenised.
        pending: places in `items` that no lane has taken yet, in order.
    """

    def __init__(
        self, inputs: Sequence[Input], options: TokenizeOptions, future: asyncio.Future[Outcome]
    ) -> None:
        self.inputs = inputs
        self.options = options
        self.future = future
        self.items: list[Item] = []
        self.pending: dict[int, None] = {}
        self._rows: list[Rows] = []
        self._missing = 0

    @property
    def abandoned(self) -> bool:
        """Whether its client left."""
        return self.future.cancelled()  # only read here, and it never becomes false again

    def tokenized(self, items: list[Item]) -> None:
        """Takes in its items: it can be computed now."""
        self.items = items
        self.pending = dict.fromkeys(range(len(items)))
        self._rows = [np.empty(0, np.float32)] * len(items)
        self._missing = len(items)

    def receive(self, place: int, row: Rows) -> bool:
        """Takes in one row; returns whether it has all of them now."""
        self._rows[place] = row
        self._missing -= 1
        return self._missing == 0

    def outcome(self) -> Outcome | RequestError:
        """What its client is told, once it has all rows."""
        rows = np.stack(self._rows)
        if not np.isfinite(rows).all():
            return ComputationFailed(
                "The model's answer holds values that are no numbers (an overflow, most likely). "
                "Try the worker with --dtype float32."
            )
        return Outcome(rows, sum(map(len, self.items)))


@dataclass(frozen=True, slots=True)
class Lanes:
    """How many batches are computed at once, and with how many threads of torch's each.

    Attributes:
        alone: of a batch beside which nothing is computed.
        beside: of each lane's batch, while others may be computed; one number: there is one lane.
    """

    alone: int = 1
    beside: tuple[int, ...] = (1,)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a lane computes next.

    Attributes:
        parts: jobs and places in them.
        threads: to compute it with.
    """

    parts: list[tuple[Job, int]]
    threads: int


class Turns:
    """The jobs that wait, and what each lane computes. Its owner locks.

    Jobs take turns, and each batch is filled with inputs of like length from all of them, so that a short
    request is not kept waiting by a long one, and nobody is kept waiting for ever.

    Args:
        lanes: their threads.
        limits: of a batch; may be changed.
    """

    def __init__(self, lanes: Lanes, limits: BatchLimits) -> None:
        self.limits = limits
        self._lanes = lanes
        self._waiting: deque[Job] = deque()
        self._served: Job | None = None  # whose turn the last one was
        self._at_work: set[int] = set()
        self._alone = False  # whether the one at work has all cores
        self._closed = False

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nothing will come."""
        return self._closed and not self._waiting

    @property
    def hungry(self) -> bool:
        """Whether there is a lane that would take a job that came now."""
        return self._free_lane() is not None

    @property
    def called(self) -> int | None:
        """The lane that has something to take now."""
        return self._free_lane() if self._waiting else None

    def add(self, jobs: Iterable[Job]) -> None:
        """They can be computed."""
        self._waiting.extend(jobs)

    def forget(self, job: Job) -> None:
        """A part of it failed: what is left of it need not be computed."""
        if job in self._waiting:
            self._waiting.remove(job)

    def close(self) -> None:
        """No more will come."""
        self._closed = True

    def take(self, lane: int) -> Batch | None:
        """A batch for a lane, which has finished what it took before.

        Returns:
            None: nothing waits, or another lane is to take it, or one computes on all cores.
        """
        self._at_work.discard(lane)
        self._waiting = deque(job for job in self._waiting if not job.abandoned)
        if not self._waiting or not self._may_begin(lane):
            return None
        batch = self._choose(lane)
        for job, place in batch.parts:
            del job.pending[place]
        self._waiting = deque(job for job in self._waiting if job.pending)
        self._at_work.add(lane)
        return batch

    def _free_lane(self) -> int | None:
        return next((lane for lane in range(len(self._lanes.beside)) if self._may_begin(lane)), None)

    def _may_begin(self, lane: int) -> bool:
        """A lone batch is always the first lane's: each lane that ever used several threads has helpers of
        its own, and OpenMP lets none spin once there are more threads than cores."""
        if not self._at_work:
            return lane == 0
        return not self._alone and lane not in self._at_work

    def _choose(self, lane: int) -> Batch:
        if self._waiting[0] is self._served:  # the others' turn comes first, that of those who just came too
            self._waiting.rotate(-1)
        self._served = self._waiting[0]
        candidates = self._candidates()
        lengths = [len(job.items[place]) for job, place in candidates]
        chosen = choose_batch(lengths, self.limits)
        takers = len(self._lanes.beside) - len(self._at_work)
        shared = len(lengths) > 1 and sum(lengths) >= _SHARED_COSTS * self.limits.batch_cost
        self._alone = not self._at_work and not shared
        if self._alone:
            return Batch([candidates[each] for each in chosen], self._lanes.alone)
        share = -(-len(candidates) // takers)
        return Batch([candidates[each] for each in chosen[:share]], self._lanes.beside[lane])

    def _candidates(self) -> list[tuple[Job, int]]:
        """Inputs that may be computed together, the first job's first one first."""
        everything = ((job, place) for job in self._waiting for place in job.pending)
        window = itertools.islice(everything, _CANDIDATES)
        first = next(window)
        alike = first[0].items[first[1]].shared
        return [first, *((job, place) for job, place in window if job.items[place].shared == alike)]
