"""Who computes what next, and beside whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm_worker.pooling.batching import BatchLimits
from local_llm_worker.pooling.inputs import Item, TokenizeOptions
from local_llm_worker.pooling.turns import Batch, Job, Lanes, Turns

LIMITS = BatchLimits(max_tokens=1000, batch_cost=10)
ONE_LANE, TWO_LANES = Lanes(4, (4,)), Lanes(4, (2, 2))


class Client:
    """As much of a future as turns look at."""

    left = False

    def cancelled(self) -> bool:
        return self.left


def job(*lengths: int) -> Job:
    """A tokenised one, with inputs of so many tokens."""
    made = Job(["x"] * len(lengths), TokenizeOptions(), Client())  # type: ignore[arg-type]
    made.tokenized([Item({"input_ids": [1] * each}) for each in lengths])
    return made


def lengths(batch: Batch | None) -> list[int]:
    """Of its inputs."""
    assert batch is not None
    return [len(job.items[place]) for job, place in batch.parts]


def turns_of(*jobs: Job, lanes: Lanes = TWO_LANES, limits: BatchLimits = LIMITS) -> Turns:
    """Where these wait and nobody computes."""
    turns = Turns(lanes, limits)
    turns.add(jobs)
    return turns


@pytest.mark.parametrize("lanes", [ONE_LANE, TWO_LANES])
def test_a_lone_text_has_all_cores(lanes: Lanes) -> None:
    """Nothing else begins until it is done; then the first lane is called again."""
    turns = turns_of(job(7), lanes=lanes)
    assert turns.called == 0
    batch = turns.take(0)
    assert lengths(batch) == [7]
    assert batch is not None
    assert batch.threads == 4
    turns.add([job(5)])
    assert (turns.called, turns.hungry) == (None, False)
    assert lengths(turns.take(0)) == [5]


def test_a_lone_batch_is_the_first_lanes() -> None:
    """OpenMP's helpers of two lanes would be more threads than cores."""
    turns = turns_of(job(7))
    assert turns.take(1) is None
    assert turns.called == 0


def test_much_is_shared_out() -> None:
    """Each lane takes half, on cores of its own; what comes then waits for the first that is done."""
    turns = turns_of(*(job(8) for _ in range(10)))
    first = turns.take(0)
    assert turns.called == 1
    second = turns.take(1)
    assert [len(lengths(each)) for each in (first, second)] == [5, 5]
    assert [each.threads for each in (first, second) if each] == [2, 2]
    assert not turns.hungry
    turns.add([job(3)])
    assert turns.called is None
    assert lengths(turns.take(1)) == [3]


def test_who_comes_while_another_computes_beside() -> None:
    """The free lane takes it at once; it is not kept for a fuller batch."""
    turns = turns_of(*(job(8) for _ in range(10)))
    turns.take(0)
    turns.take(1)
    assert turns.take(1) is None
    assert turns.hungry
    turns.add([job(2)])
    assert turns.called == 1
    batch = turns.take(1)
    assert batch is not None
    assert (lengths(batch), batch.threads) == ([2], 2)


def test_one_long_text_is_not_shared() -> None:
    """However long: it has all cores."""
    batch = turns_of(job(900)).take(0)
    assert batch is not None
    assert batch.threads == 4


def test_uneven_cores() -> None:
    """Each lane computes with its own number of threads."""
    turns = turns_of(*(job(8) for _ in range(10)), lanes=Lanes(3, (2, 1)))
    assert [each.threads for each in (turns.take(0), turns.take(1)) if each] == [2, 1]


def test_one_request_in_both_lanes() -> None:
    """It is done when the last of its rows has come, from whichever lane."""
    request = job(*[8] * 10)
    turns = turns_of(request)
    batches = [turns.take(0), turns.take(1)]
    places = [place for batch in batches if batch for _, place in batch.parts]
    assert sorted(places) == list(range(10))
    assert [request.receive(place, None) for place in places] == [False] * 9 + [True]  # type: ignore[arg-type]


def test_short_one_overtakes() -> None:
    """After a batch of the long one's comes another's turn, that of one who just came too."""
    long, short = job(*[100] * 3), job(1)
    turns = turns_of(long, lanes=ONE_LANE, limits=BatchLimits(100, 10))
    assert lengths(turns.take(0)) == [100]
    turns.add([short])
    assert lengths(turns.take(0)) == [1]
    assert lengths(turns.take(0)) == [100]


def test_nobody_waits_for_who_left() -> None:
    """An abandoned job is dropped, and so is the rest of one that failed."""
    left, failed, stays = job(4), job(5, 5), job(6)
    turns = turns_of(left, failed, stays, lanes=ONE_LANE)
    left.future.left = True  # type: ignore[attr-defined]
    turns.forget(failed)
    turns.forget(failed)
    assert lengths(turns.take(0)) == [6]
    turns.close()
    assert turns.take(0) is None
    assert turns.finished


@st.composite
def stories(draw: st.DrawFn) -> tuple[Lanes, list[tuple[str, Any]]]:
    """Lanes, and in which order jobs come and lanes ask."""
    lanes = draw(st.sampled_from([ONE_LANE, TWO_LANES, Lanes(3, (2, 1)), Lanes(4, (2, 1, 1))]))
    add = st.tuples(st.just("add"), st.lists(st.integers(1, 60), min_size=1, max_size=12))
    take = st.tuples(st.just("take"), st.integers(0, len(lanes.beside) - 1))
    return lanes, draw(st.lists(st.one_of(add, take), max_size=30))


@given(stories())
def test_every_input_once_within_the_cores(story: tuple[Lanes, list[tuple[str, Any]]]) -> None:
    """Whatever the order: never more threads than cores, each input once, and all are taken in the end."""
    lanes, steps = story
    turns = Turns(lanes, BatchLimits(200, 10))
    added: int = 0
    taken: set[tuple[Job, int]] = set()
    at_work: dict[int, int] = {}
    for what, value in _then_to_the_end(steps, turns, len(lanes.beside)):
        if what == "add":
            turns.add([job(*value)])
            added += len(value)
            continue
        at_work.pop(value, None)
        batch = turns.take(value)
        if batch is not None:
            at_work[value] = batch.threads
            assert taken.isdisjoint(batch.parts)
            taken.update(batch.parts)
        assert sum(at_work.values()) <= lanes.alone
    assert len(taken) == added


def _then_to_the_end(steps: list[tuple[str, Any]], turns: Turns, lanes: int) -> Iterator[tuple[str, Any]]:
    """The steps; after each whoever is called asks, and at last the lanes ask until nothing waits."""
    for step in steps:
        yield step
        if (lane := turns.called) is not None:
            yield "take", lane
    turns.close()
    for _ in range(1000):
        if turns.finished:
            return
        yield from (("take", lane) for lane in range(lanes))
    pytest.fail("they wait for ever")
