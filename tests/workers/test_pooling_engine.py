"""Requests, batches and threads, with a model that only counts."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import anyio
import numpy as np
import numpy.typing as npt
import pytest

from local_llm_worker.pooling.batching import BatchLimits
from local_llm_worker.pooling.engine import Engine
from local_llm_worker.pooling.errors import ComputationFailed, DeviceLost, InputRejected, OutOfMemory
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions
from local_llm_worker.pooling.turns import Lanes

WAIT_SECONDS = 20
PLAIN = TokenizeOptions()


class CountingModel:
    """A token a letter; the row of an input is its length. Computes a batch when it is let.

    Attributes:
        batches: inputs' lengths, batch by batch.
        began: gets an entry when a batch begins.
        capacity: padded tokens that fit the memory.
        threads: names of those that tokenised, and that computed.
        used: numbers of torch's threads that each of those was told to use.
        answer: what becomes of a batch's lengths.
    """

    max_length = 1000

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began: SimpleQueue[None] = SimpleQueue()
        self.capacity = 10**9
        self.freed = 0
        self.tokenized: list[list[Input]] = []
        self.threads: dict[str, set[str]] = {"tokenize": set(), "compute": set()}
        self.answer: Callable[[list[int]], Sequence[float]] = lambda lengths: lengths
        self.used: defaultdict[str, list[int]] = defaultdict(list)
        self._let = threading.Semaphore(0)

    def let(self, batches: int = 10**6) -> None:
        self._let.release(batches)

    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]:
        self.threads["tokenize"].add(threading.current_thread().name)
        self.tokenized.append(list(inputs))
        if "?" in inputs:
            raise ValueError("a fault in the tokenizer")
        shared = (("prompt_length", len(options.prompt or "")),)
        return [Item({"input_ids": [1] * len(each)}, shared) for each in inputs]

    def use_threads(self, count: int) -> None:
        self.used[threading.current_thread().name].append(count)

    def compute(self, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        self.threads["compute"].add(threading.current_thread().name)
        self.began.put(None)
        assert self._let.acquire(timeout=WAIT_SECONDS)
        lengths = [len(each) for each in items]
        if len(lengths) * max(lengths) > self.capacity:
            raise OutOfMemory("it does not fit")
        self.batches.append(lengths)
        return np.array([[each] for each in self.answer(lengths)], np.float32)

    def free_memory(self) -> None:
        self.freed += 1

    async def begun(self) -> None:
        """Returns when a batch has begun."""
        await asyncio.to_thread(self.began.get, timeout=WAIT_SECONDS)


def run(engine: Engine, *lengths: int, options: TokenizeOptions = PLAIN) -> asyncio.Task[list[int]]:
    """Submits texts of these lengths; the task's result is their rows."""

    async def ask() -> list[int]:
        outcome = await engine.submit(["x" * each for each in lengths], options)
        assert outcome.tokens == sum(lengths)
        return [int(row[0]) for row in outcome.rows]

    return asyncio.create_task(ask())


@pytest.fixture
def model() -> CountingModel:
    """A model that computes nothing until it is let."""
    return CountingModel()


def make_engine(
    model: CountingModel, max_tokens: int = 1000, batch_cost: int = 1000, lanes: Lanes | None = None
) -> Engine:
    """An engine whose device is never lost."""
    limits = BatchLimits(max_tokens, batch_cost)
    return Engine(model, limits, on_device_lost=pytest.fail, lanes=lanes or Lanes())


async def submitted(engine: Engine) -> None:
    """Returns when all that was asked so far lies before the compute thread."""
    await asyncio.sleep(0)  # lets the tasks just created put their request in
    # Requests pass the tokeniser in order, and this one it refuses by itself.
    with pytest.raises(InputRejected):
        await engine.submit([""], TokenizeOptions(max_length=999))


async def test_batches_across_requests(model: CountingModel) -> None:
    """What came while a batch ran is computed together, and each gets its own rows."""
    async with make_engine(model) as engine:
        first = run(engine, 3)
        await model.begun()
        others = [run(engine, 5, 4), run(engine, 6), run(engine, 2)]
        await submitted(engine)
        model.let()

        assert await first == [3]
        assert await asyncio.gather(*others) == [[5, 4], [6], [2]]
    assert model.batches == [[3], [5, 4, 6, 2]]
    assert model.threads == {"tokenize": {"tokenise"}, "compute": {"compute 0"}}


async def test_budget_counts_padding(model: CountingModel) -> None:
    """A batch stays within its tokens, padding included, and joins like lengths."""
    model.let()
    async with make_engine(model, max_tokens=40) as engine:
        assert await run(engine, 10, 3, 9, 3, 3, 3, 10, 9) == [10, 3, 9, 3, 3, 3, 10, 9]
    assert sorted(model.batches) == [[3, 3, 3, 3], [10, 10, 9, 9]]


async def test_short_request_overtakes_a_long_one(model: CountingModel) -> None:
    """Jobs take turns: a short one waits for a batch of the long one's, not for all."""
    async with make_engine(model, max_tokens=100) as engine:
        long = run(engine, *[100] * 10)
        await model.begun()
        short = run(engine, 1)
        await submitted(engine)
        model.let(2)

        assert await short == [1]
        assert not long.done()
        model.let()
        assert await long == [100] * 10
    assert model.batches[:3] == [[100], [1], [100]]


async def test_different_prompts_stay_apart(model: CountingModel) -> None:
    """Features that belong to a whole batch must be equal in it."""
    async with make_engine(model) as engine:
        first = run(engine, 1)
        await model.begun()
        asked = TokenizeOptions(prompt="query: ")
        others = [
            run(engine, 2),
            run(engine, 3, options=asked),
            run(engine, 2),
            run(engine, 3, options=asked),
        ]
        await submitted(engine)
        model.let()
        await asyncio.gather(first, *others)
    assert sorted(model.batches[1:]) == [[2, 2], [3, 3]]


async def test_abandoned_request_is_dropped(model: CountingModel) -> None:
    """A request whose client left is not computed if its turn had not come."""
    async with make_engine(model) as engine:
        first = run(engine, 1)
        await model.begun()
        left, stays = run(engine, 7), run(engine, 8)
        await submitted(engine)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        model.let()
        assert await asyncio.gather(first, stays) == [[1], [8]]
    assert model.batches == [[1], [8]]


async def test_two_batches_at_once(model: CountingModel) -> None:
    """Much is computed in two lanes, each with its threads; every row finds its request, and its place."""
    lanes = Lanes(5, (3, 2))
    async with make_engine(model, batch_cost=1, lanes=lanes) as engine:
        tasks = [run(engine, 4, 7, 5, 6), run(engine, 6, 5)]
        await model.begun()
        await model.begun()
        model.let()
        assert await asyncio.gather(*tasks) == [[4, 7, 5, 6], [6, 5]]
    assert 3 in model.used["compute 0"]  # and 5, if it was alone with the last input
    assert model.used["compute 1"] == [2]


async def test_alone_after_others(model: CountingModel) -> None:
    """What comes alone is computed with all threads, once the other lane has seen that nothing waits."""
    model.let()
    async with make_engine(model, batch_cost=1, lanes=Lanes(5, (3, 2))) as engine:
        await asyncio.gather(*(run(engine, 8, 8, 8, 8) for _ in range(20)))
        with anyio.fail_after(WAIT_SECONDS):
            assert await run(engine, 8) == [8]
            while model.used["compute 0"][-1] != 5:
                assert await run(engine, 8) == [8]


async def test_failure_in_one_lane(model: CountingModel) -> None:
    """A request fails as a whole when a part of it does; the other lane's requests have their answers."""

    def fail(lengths: list[int]) -> Sequence[float]:
        if 7 in lengths:
            raise ZeroDivisionError
        return lengths

    model.answer = fail
    model.let()
    async with make_engine(model, max_tokens=8, batch_cost=1, lanes=Lanes(2, (1, 1))) as engine:
        spoilt = run(engine, 4, 7, 7, 6)
        fine = [run(engine, 5, 6, 4) for _ in range(10)]
        with pytest.raises(ComputationFailed):
            await spoilt
        assert await asyncio.gather(*fine) == [[5, 6, 4]] * 10


async def test_out_of_memory_halves_the_batch(model: CountingModel) -> None:
    """The answer comes all the same, and later batches stay within what fitted."""
    model.capacity = 20
    model.let()
    async with make_engine(model) as engine:
        assert await run(engine, *[10] * 8) == [10] * 8
        freed = model.freed
        assert await run(engine, *[10] * 8) == [10] * 8
    assert freed >= 2
    assert model.freed == freed
    assert model.batches == [[10, 10]] * 8


async def test_out_of_memory_with_one_input(model: CountingModel) -> None:
    """What does not fit alone fails, and only that, even if others were in its batch."""
    model.capacity = 20
    async with make_engine(model) as engine:
        first = run(engine, 1)
        await model.begun()
        too_long, fine = run(engine, 30), run(engine, 10, 9)
        await submitted(engine)
        model.let()
        with pytest.raises(OutOfMemory):
            await too_long
        assert await asyncio.gather(first, fine) == [[1], [10, 9]]


async def test_no_numbers(model: CountingModel) -> None:
    """NaN never reaches a client as a number; others of the same batch have their answers."""
    model.answer = lambda lengths: [float("nan") if each == 4 else each for each in lengths]
    async with make_engine(model) as engine:
        first = run(engine, 1)
        await model.begun()
        spoilt, fine = run(engine, 4), run(engine, 5)
        await submitted(engine)
        model.let()
        with pytest.raises(ComputationFailed, match="no numbers"):
            await spoilt
        assert await asyncio.gather(first, fine) == [[1], [5]]
    assert [4, 5] in model.batches


async def test_failure_of_a_batch(model: CountingModel) -> None:
    """The requests of a failed batch are told without internals; the engine goes on."""

    def fail_once(_lengths: list[int]) -> Sequence[float]:
        model.answer = lambda lengths: lengths
        raise ZeroDivisionError("secret")

    model.answer = fail_once
    model.let()
    async with make_engine(model) as engine:
        with pytest.raises(ComputationFailed) as failure:
            await run(engine, 3, 4)
        assert await run(engine, 3) == [3]
    assert "secret" not in failure.value.message


async def test_one_bad_request_among_many(model: CountingModel) -> None:
    """Requests are tokenised together; what one of them breaks, it breaks for itself."""
    async with make_engine(model) as engine:
        first = run(engine, 1)
        await model.begun()
        bad, good = engine.submit(["?"], PLAIN), run(engine, 2)
        model.let()
        with pytest.raises(ComputationFailed):
            await bad
        assert await asyncio.gather(first, good) == [[1], [2]]


@pytest.mark.parametrize(("length", "reason"), [(0, "no token"), (1001, "has 1001 tokens, .* takes 1000")])
async def test_rejected_input(model: CountingModel, length: int, reason: str) -> None:
    """Too long or empty an input is told by its number, and nothing of the request is computed."""
    async with make_engine(model) as engine:
        with pytest.raises(InputRejected, match=reason) as rejection:
            await run(engine, 3, length, 3)
    assert rejection.value.index == 1
    assert model.batches == []


async def test_lost_device(model: CountingModel) -> None:
    """The request is told, and whoever runs the engine too."""

    def lose(_lengths: list[int]) -> Sequence[float]:
        raise DeviceLost("gone")

    model.answer = lose
    model.let()
    lost = threading.Event()
    async with Engine(model, BatchLimits(10, 10), on_device_lost=lost.set) as engine:
        with pytest.raises(DeviceLost):
            await run(engine, 3)
    assert lost.is_set()


async def test_leaving_finishes_what_was_submitted(model: CountingModel) -> None:
    """The engine's end waits for requests that are still wanted, and its threads end."""
    async with make_engine(model) as engine:
        tasks = [run(engine, 1), run(engine, 2)]
        await model.begun()
        await submitted(engine)
        model.let()
    assert await asyncio.gather(*tasks) == [[1], [2]]
    assert not {"tokenise", "compute 0"} & {each.name for each in threading.enumerate()}
