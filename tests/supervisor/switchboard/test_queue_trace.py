"""The figures of ARCHITECTURE.md, from the simulation that `make bench-queue` prints."""

from __future__ import annotations

import math

import pytest

from benchmarks.queue_trace import (
    ANSWER_SECONDS,
    LOAD_SECONDS,
    B,
    alternating_crowd,
    bound_seconds,
    late,
    main,
    simulate,
    trace,
)


def longest_wait_of_b(simulation) -> float:
    """In simulated seconds."""
    return max(each.waited_seconds for each in simulation.requests.values() if each.model is B)


def test_the_few_wait_no_longer_than_patience_drain_and_load():
    """The trace of the issue: where llama-swap let b wait 39 s, it is 5.5 here."""
    simulation = simulate(trace())
    assert longest_wait_of_b(simulation) <= LOAD_SECONDS + ANSWER_SECONDS + LOAD_SECONDS
    assert late(simulation) == 0


def test_the_bound_forces_no_more_than_two_switches_for_each_of_the_few():
    """There and back."""
    simulation = simulate(trace())
    assert simulation.switches <= 2 * sum(model is B for _, model in trace())


@pytest.mark.parametrize("seed", range(10))
def test_the_bound_holds_whatever_the_seed(seed):
    """Also for who comes while a switch away is under way (k = 2)."""
    simulation = simulate(trace(seed))
    assert late(simulation) == 0
    assert all(each.waited_seconds <= bound_seconds(2) for each in simulation.requests.values())


def test_a_greedy_policy_lets_the_few_wait_as_long_as_the_many_come():
    """What the trace is about."""
    assert longest_wait_of_b(simulate(trace(), patience=math.inf)) > 30


def test_an_alternating_crowd_of_a_hundred_costs_one_switch():
    """All of a, then all of b."""
    simulation = simulate(alternating_crowd())
    assert simulation.switches == 1
    assert late(simulation) == 0


def test_the_table_is_printed(capsys):
    """`make bench-queue` works."""
    main(more_seeds=2)
    assert "greedy" in capsys.readouterr().out
