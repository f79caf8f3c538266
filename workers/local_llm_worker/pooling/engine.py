"""From concurrent requests to batches and back.

    event loop ── Job ──▶ tokeniser thread ── Job ──▶ compute thread ── rows ──▶ event loop

Each thread alone owns what it works with; jobs travel through queues. The tokeniser takes all requests
that wait and tokenises those of equal options in one call. The compute thread owns the model: it takes
turns among the waiting jobs, and fills each batch with inputs of like length from all of them, so that a
short request is not kept waiting by a long one, and nobody is kept waiting for ever.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from local_llm_worker.pooling.batching import BatchLimits, choose_batch
from local_llm_worker.pooling.errors import (
    ComputationFailed,
    DeviceLost,
    InputRejected,
    OutOfMemory,
    RequestError,
)
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions

_log = logging.getLogger(__name__)

# Inputs that a batch is chosen from: enough to find neighbours in length, few enough to sort in passing.
_CANDIDATES = 512
# While a batch is computed, those who come are tokenised together: eight texts take as long as three alone.
_GATHER_SECONDS = 0.003

Rows = npt.NDArray[np.float32]


class Model(Protocol):
    """What an engine needs of a model; see `inference.Inference`."""

    @property
    def max_length(self) -> int: ...
    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]: ...
    def compute(self, items: Sequence[Item]) -> Rows: ...
    def free_memory(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request gets back.

    Attributes:
        rows: one an input, in their order.
        tokens: of all inputs, padding not counted.
    """

    rows: Rows
    tokens: int


class _Job:
    """A request's inputs on their way. Owned by one thread at a time; the future is the event loop's."""

    def __init__(
        self, inputs: Sequence[Input], options: TokenizeOptions, future: asyncio.Future[Outcome]
    ) -> None:
        self.inputs = inputs
        self.options = options
        self.future = future
        self.items: list[Item] = []
        self.pending: dict[int, None] = {}  # places in `items`, in order
        self.rows: list[Rows] = []

    @property
    def abandoned(self) -> bool:
        return self.future.cancelled()  # only read here, and it never becomes false again

    def tokenized(self, items: list[Item]) -> None:
        self.items = items
        self.pending = dict.fromkeys(range(len(items)))
        self.rows = [np.empty(0, np.float32)] * len(items)

    def outcome(self) -> Outcome | RequestError:
        rows = np.stack(self.rows)
        if not np.isfinite(rows).all():
            return ComputationFailed(
                "The model's answer holds values that are no numbers (an overflow, most likely). "
                "Try the worker with --dtype float32."
            )
        return Outcome(rows, sum(map(len, self.items)))


class Engine:
    """Runs a model for many requests at once; an async context manager, for one event loop.

    Args:
        model: `tokenize` is called from one thread of the engine's, all else from one other.
        limits: of a batch. They shrink for good when the device runs out of memory.
        on_device_lost: called from a thread when no batch can succeed any more: this process must end.
    """

    def __init__(self, model: Model, limits: BatchLimits, on_device_lost: Callable[[], None]) -> None:
        self._model = model
        self._limits = limits
        self._on_device_lost = on_device_lost
        self._to_tokenize: SimpleQueue[_Job | None] = SimpleQueue()  # None: no more will come
        self._to_compute: SimpleQueue[_Job | None] = SimpleQueue()
        self._computes_nothing = threading.Event()
        self._threads = [
            # Daemons: a second Ctrl-C ends the process without waiting for a batch.
            threading.Thread(target=self._tokenize_all, name="tokenise", daemon=True),
            threading.Thread(target=self._compute_all, name="compute", daemon=True),
        ]

    async def __aenter__(self) -> Engine:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes what was submitted and not abandoned, then ends the threads."""
        self._to_tokenize.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def submit(self, inputs: Sequence[Input], options: TokenizeOptions) -> asyncio.Future[Outcome]:
        """Computes `inputs`; cancelling the future takes back what is not yet computed.

        Args:
            inputs: at least one, all of one sort.
            options: how they become tokens.

        Returns:
            The outcome to come, or one of these:

        Raises:
            InputRejected: an input has no token, or more than the model takes.
            RequestError: the computation failed.
        """
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._to_tokenize.put(_Job(inputs, options, future))
        return future

    # --- tokeniser thread ---

    def _tokenize_all(self) -> None:
        while True:
            jobs, is_last = _drain(self._to_tokenize, wait=True)
            if not is_last and not self._computes_nothing.wait(_GATHER_SECONDS):
                more, is_last = _drain(self._to_tokenize, wait=False)
                jobs += more
            by_options: dict[TokenizeOptions, list[_Job]] = {}
            for job in jobs:
                if not job.abandoned:
                    by_options.setdefault(job.options, []).append(job)
            for options, group in by_options.items():
                self._tokenize(group, options)
            if is_last:
                self._to_compute.put(None)
                return

    def _tokenize(self, jobs: Sequence[_Job], options: TokenizeOptions) -> None:
        try:
            items = iter(self._model.tokenize([each for job in jobs for each in job.inputs], options))
        except Exception as error:  # noqa: BLE001 - the thread must live on; the requests are told
            if len(jobs) > 1:  # one request's fault is not the others'
                for job in jobs:
                    self._tokenize([job], options)
                return
            self._settle([(jobs[0].future, _told(error, "tokenise"))])
            return
        for job in jobs:
            job.tokenized(list(itertools.islice(items, len(job.inputs))))
            rejection = _rejection(job.items, self._model.max_length)
            if rejection is None:
                self._to_compute.put(job)
            else:
                self._settle([(job.future, rejection)])

    # --- compute thread ---

    def _compute_all(self) -> None:
        waiting: deque[_Job] = deque()
        served: _Job | None = None
        is_last = False
        while not is_last or waiting:
            if not is_last:
                if not waiting:
                    self._computes_nothing.set()
                arrived, is_last = _drain(self._to_compute, wait=not waiting)
                self._computes_nothing.clear()
                waiting.extend(arrived)
            waiting = deque(job for job in waiting if not job.abandoned)
            if not waiting:
                continue
            if waiting[0] is served:  # the others' turn comes first, that of those who just came too
                waiting.rotate(-1)
            served = waiting[0]
            self._compute_next(waiting)

    def _compute_next(self, waiting: deque[_Job]) -> None:
        """Computes a batch that begins with the first job, and takes out of `waiting` what is done."""
        done = self._outcomes(self._choose(waiting))
        for job, _ in done:
            waiting.remove(job)
        self._settle([(job.future, outcome) for job, outcome in done])

    def _outcomes(self, batch: Sequence[tuple[_Job, int]]) -> list[tuple[_Job, Outcome | Exception]]:
        """Computes the batch; returns the jobs that are done with it, for better or worse."""
        try:
            rows = self._compute([job.items[place] for job, place in batch])
        except Exception as error:  # noqa: BLE001 - the thread must live on; the requests are told
            parts: dict[_Job, list[tuple[_Job, int]]] = {}
            for job, place in batch:
                parts.setdefault(job, []).append((job, place))
            if isinstance(error, DeviceLost):
                self._on_device_lost()
            elif len(parts) > 1:  # one request's fault is not the others'
                return [done for part in parts.values() for done in self._outcomes(part)]
            return [(job, _told(error, "compute")) for job in parts]
        return _take_in(batch, rows)

    def _choose(self, waiting: Iterable[_Job]) -> list[tuple[_Job, int]]:
        everything = ((job, place) for job in waiting for place in job.pending)
        window = itertools.islice(everything, _CANDIDATES)
        first = next(window)
        shared = first[0].items[first[1]].shared
        alike = [first, *((job, place) for job, place in window if job.items[place].shared == shared)]
        chosen = choose_batch([len(job.items[place]) for job, place in alike], self._limits)
        return [alike[each] for each in chosen]

    def _compute(self, items: Sequence[Item]) -> Rows:
        try:
            return self._model.compute(items)
        except OutOfMemory:
            if len(items) == 1:
                raise
        # Out of the `except`: the exception's frames hold the tensors that filled the memory.
        self._model.free_memory()
        tokens = len(items) * max(map(len, items))
        self._limits = replace(self._limits, max_tokens=min(self._limits.max_tokens, max(1, tokens // 2)))
        _log.warning("out of memory with %d tokens: batches of %d from now on", tokens, tokens // 2)
        half = len(items) // 2
        return np.concatenate([self._compute(items[:half]), self._compute(items[half:])])

    # --- back to the event loop ---

    def _settle(self, settled: Sequence[tuple[asyncio.Future[Outcome], Outcome | Exception]]) -> None:
        if settled:
            self._loop.call_soon_threadsafe(_set_outcomes, settled)


def _drain(queue: SimpleQueue[_Job | None], *, wait: bool) -> tuple[list[_Job], bool]:
    """All that is in `queue`, waiting for the first if asked to; and whether it was the last."""
    jobs: list[_Job] = []
    try:
        job = queue.get(block=wait)
        while job is not None:
            jobs.append(job)
            job = queue.get_nowait()
    except Empty:
        return jobs, False
    return jobs, True


def _take_in(batch: Sequence[tuple[_Job, int]], rows: Rows) -> list[tuple[_Job, Outcome | Exception]]:
    """Hands each job its rows; returns those that have all of them now."""
    done: list[tuple[_Job, Outcome | Exception]] = []
    for (job, place), row in zip(batch, rows, strict=True):
        job.rows[place] = row
        del job.pending[place]
        if not job.pending:
            done.append((job, job.outcome()))
    return done


def _rejection(items: Sequence[Item], max_length: int) -> InputRejected | None:
    for index, item in enumerate(items):
        if len(item) == 0:
            return InputRejected(index, "has no token that the model could read.")
        if len(item) > max_length:
            return InputRejected(
                index,
                f"has {len(item)} tokens, and the model takes {max_length} at most. "
                "Send less, or truncate_prompt_tokens: -1 to have it cut.",
            )
    return None


def _told(error: Exception, what: str) -> Exception:
    """What of `error` the client may know; the rest goes to the log."""
    if isinstance(error, (RequestError, InputRejected)):
        return error
    _log.error("cannot %s", what, exc_info=error)
    return ComputationFailed(f"The model failed ({type(error).__name__}); the worker's log says more.")


def _set_outcomes(settled: Sequence[tuple[asyncio.Future[Outcome], Outcome | Exception]]) -> None:
    for future, outcome in settled:
        if future.done():  # its client left
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
