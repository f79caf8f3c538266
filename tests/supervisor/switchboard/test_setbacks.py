"""What is remembered of models that failed."""

from __future__ import annotations

from local_llm.errors import LoadFailed
from local_llm.switchboard.events import Model
from local_llm.switchboard.setbacks import FIRST_COOLDOWN_SECONDS, Setbacks

ERROR = LoadFailed("it failed")


def version(number: int) -> Model:
    """One version of one model."""
    return Model(key=f"a@{number}", label="a", first_guess_seconds=1.0)


def test_a_replaced_version_is_forgotten_once_its_cooldown_is_over() -> None:
    """A folder that is mended and broken again and again must not fill the memory."""
    setbacks = Setbacks()
    for number in range(100):
        setbacks.load_failed(version(number), number * FIRST_COOLDOWN_SECONDS, ERROR)
    assert list(setbacks.by_key) == ["a@99"]


def test_a_replaced_version_that_still_cools_down_is_left_alone() -> None:
    """It may come back: a folder that is restored looks as it did."""
    setbacks = Setbacks()
    for number in range(3):
        setbacks.load_failed(version(number), 0.0, ERROR)
    assert all(setbacks.refusal(f"a@{number}", 1.0) for number in range(3))
