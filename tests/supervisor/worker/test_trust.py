"""Which models may be started from a warm template."""

from __future__ import annotations

from typing import Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm.worker.trust import Trust

Event: TypeAlias = Literal["failed warm", "failed cold", "ready cold"]
EVENTS: tuple[Event, ...] = ("failed warm", "failed cold", "ready cold")


def tell(trust: Trust, model_id: str, event: Event) -> bool:
    """One event; returns whether it convicted the template."""
    match event:
        case "failed warm":
            trust.warm_start_failed(model_id)
        case "failed cold":
            trust.cold_start_failed(model_id)
        case "ready cold":
            return trust.cold_start_ready(model_id)
    return False


@pytest.mark.parametrize(
    ("events", "may_fork"),
    [
        ([], True),
        (["ready cold"], True),
        (["failed cold"], True),
        (["failed warm"], False),
        (["failed warm", "failed cold"], True),
        (["failed warm", "ready cold"], False),
        (["failed warm", "ready cold", "failed cold"], False),
        (["failed warm", "ready cold", "failed warm", "failed cold"], False),
        (["failed warm", "failed cold", "failed warm"], False),
    ],
)
def test_may_fork(events: list[Event], may_fork: bool) -> None:
    """What fails warm and not cold is started cold; what fails both ways is trusted again."""
    trust = Trust()
    for event in events:
        tell(trust, "a", event)
    assert trust.may_fork("a") is may_fork


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(EVENTS))))
def test_one_conviction_at_most_and_for_good(told: list[tuple[str, Event]]) -> None:
    """It follows a failed warm start, is said once, is never taken back, and is each model's own."""
    trust = Trust()
    convicted: set[str] = set()
    failed_warm: set[str] = set()
    for model_id, event in told:
        other = "b" if model_id == "a" else "a"
        others_before = trust.may_fork(other)
        if tell(trust, model_id, event):
            assert model_id in failed_warm - convicted
            convicted.add(model_id)
        if event == "failed warm":
            failed_warm.add(model_id)
        assert trust.may_fork(other) is others_before
        assert not any(trust.may_fork(each) for each in convicted)
