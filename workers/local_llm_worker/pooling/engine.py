"""From concurrent requests to batches and back.

    event loop ── Job ──▶ tokeniser thread ── Job ──▶ turns ── Batch ──▶ lanes' threads ── rows ──▶ event loop

The tokeniser takes all requests that wait and tokenises those of equal options in one call. Each lane asks
the turns (`turns.py`, under the engine's one lock) for its next batch and computes it; on a GPU, and for most
models, there is one lane.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from local_llm_worker.pooling.batching import BatchLimits
from local_llm_worker.pooling.errors import (
    ComputationFailed,
    DeviceLost,
    InputRejected,
    OutOfMemory,
    RequestError,
)
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions
from local_llm_worker.pooling.turns import Batch, Job, Lanes, Outcome, Turns

_log = logging.getLogger(__name__)

# While every lane computes, those who come are tokenised together: eight texts take as long as three alone.
_GATHER_SECONDS = 0.003

Rows = npt.NDArray[np.float32]


class Model(Protocol):
    """What an engine needs of a model; see `inference.Inference`."""

    @property
    def max_length(self) -> int: ...
    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]: ...
    def use_threads(self, count: int) -> None: ...
    def compute(self, items: Sequence[Item]) -> Rows: ...
    def free_memory(self) -> None: ...


_ONE_LANE = Lanes()


class Engine:
    """Runs a model for many requests at once; an async context manager, for one event loop.

    Args:
        model: `tokenize` is called from one thread of the engine's, all else from each lane's.
        limits: of a batch. They shrink for good when the device runs out of memory.
        on_device_lost: called from a thread when no batch can succeed any more: this process must end.
        lanes: more than one only where the model can compute several batches at once.
    """

    def __init__(
        self, model: Model, limits: BatchLimits, on_device_lost: Callable[[], None], lanes: Lanes = _ONE_LANE
    ) -> None:
        self._model = model
        self._on_device_lost = on_device_lost
        self._to_tokenize: SimpleQueue[Job | None] = SimpleQueue()  # None: no more will come
        self._turns = Turns(lanes, limits)
        self._lock = threading.Lock()  # of the turns, and of what jobs have received
        self._calls = [threading.Condition(self._lock) for _ in lanes.beside]
        self._hungry = threading.Event()  # set while a lane would take what comes
        self._threads = [
            # Daemons: a second Ctrl-C ends the process without waiting for a batch.
            threading.Thread(target=self._tokenize_all, name="tokenise", daemon=True),
            *(
                threading.Thread(target=self._compute_all, args=(lane,), name=f"compute {lane}", daemon=True)
                for lane in range(len(lanes.beside))
            ),
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
        self._to_tokenize.put(Job(inputs, options, future))
        return future

    # --- tokeniser thread ---

    def _tokenize_all(self) -> None:
        while True:
            jobs, is_last = _drain(self._to_tokenize, wait=True)
            if not is_last and not self._hungry.wait(_GATHER_SECONDS):
                more, is_last = _drain(self._to_tokenize, wait=False)
                jobs += more
            by_options: dict[TokenizeOptions, list[Job]] = {}
            for job in jobs:
                if not job.abandoned:
                    by_options.setdefault(job.options, []).append(job)
            for options, group in by_options.items():
                self._tokenize(group, options)
            if is_last:
                with self._lock:
                    self._turns.close()
                    self._call()
                return

    def _tokenize(self, jobs: Sequence[Job], options: TokenizeOptions) -> None:
        try:
            items = iter(self._model.tokenize([each for job in jobs for each in job.inputs], options))
        except Exception as error:  # noqa: BLE001 - the thread must live on; the requests are told
            if len(jobs) > 1:  # one request's fault is not the others'
                for job in jobs:
                    self._tokenize([job], options)
                return
            self._settle([(jobs[0].future, _told(error, "tokenise"))])
            return
        accepted: list[Job] = []
        for job in jobs:
            job.tokenized(list(itertools.islice(items, len(job.inputs))))
            rejection = _rejection(job.items, self._model.max_length)
            if rejection is None:
                accepted.append(job)
            else:
                self._settle([(job.future, rejection)])
        with self._lock:
            self._turns.add(accepted)
            self._call()

    # --- each lane's thread ---

    def _compute_all(self, lane: int) -> None:
        threads: int | None = None
        while (batch := self._next(lane)) is not None:
            if batch.threads != threads:
                self._model.use_threads(batch.threads)
                threads = batch.threads
            done = self._outcomes(batch.parts)
            self._settle([(job.future, outcome) for job, outcome in done])

    def _next(self, lane: int) -> Batch | None:
        """Waits for a batch; None: there will be none."""
        with self._lock:
            while (batch := self._turns.take(lane)) is None and not self._turns.finished:
                self._call()
                self._calls[lane].wait()
            self._call()
            return batch

    def _call(self) -> None:
        """Wakes whom the turns have something for. The lock is held."""
        if self._turns.hungry:
            self._hungry.set()
        else:
            self._hungry.clear()
        if self._turns.finished:
            for each in self._calls:
                each.notify()
        elif (lane := self._turns.called) is not None:
            self._calls[lane].notify()

    def _outcomes(self, batch: Sequence[tuple[Job, int]]) -> list[tuple[Job, Outcome | Exception]]:
        """Computes the batch; returns the jobs that are done with it, for better or worse."""
        try:
            rows = self._compute([job.items[place] for job, place in batch])
        except Exception as error:  # noqa: BLE001 - the thread must live on; the requests are told
            parts: dict[Job, list[tuple[Job, int]]] = {}
            for job, place in batch:
                parts.setdefault(job, []).append((job, place))
            if isinstance(error, DeviceLost):
                self._on_device_lost()
            elif len(parts) > 1:  # one request's fault is not the others'
                return [done for part in parts.values() for done in self._outcomes(part)]
            with self._lock:
                for job in parts:
                    self._turns.forget(job)
            return [(job, _told(error, "compute")) for job in parts]
        with self._lock:
            done = [job for (job, place), row in zip(batch, rows, strict=True) if job.receive(place, row)]
        return [(job, job.outcome()) for job in done]

    def _compute(self, items: Sequence[Item]) -> Rows:
        try:
            return self._model.compute(items)
        except OutOfMemory:
            if len(items) == 1:
                raise
        # Out of the `except`: the exception's frames hold the tensors that filled the memory.
        self._model.free_memory()
        tokens = len(items) * max(map(len, items))
        with self._lock:
            limits = self._turns.limits
            self._turns.limits = replace(limits, max_tokens=min(limits.max_tokens, max(1, tokens // 2)))
        _log.warning("out of memory with %d tokens: batches of %d from now on", tokens, tokens // 2)
        half = len(items) // 2
        return np.concatenate([self._compute(items[:half]), self._compute(items[half:])])

    # --- back to the event loop ---

    def _settle(self, settled: Sequence[tuple[asyncio.Future[Outcome], Outcome | Exception]]) -> None:
        if settled:
            self._loop.call_soon_threadsafe(_set_outcomes, settled)


def _drain(queue: SimpleQueue[Job | None], *, wait: bool) -> tuple[list[Job], bool]:
    """All that is in `queue`, waiting for the first if asked to; and whether it was the last."""
    jobs: list[Job] = []
    try:
        job = queue.get(block=wait)
        while job is not None:
            jobs.append(job)
            job = queue.get_nowait()
    except Empty:
        return jobs, False
    return jobs, True


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
