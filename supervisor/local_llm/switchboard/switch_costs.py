"""What a switch to each model costs: measured, averaged, remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

from local_llm.switchboard.events import Model

NEWEST_WEIGHT = 0.3
"""Of a new measurement in the running average: three switches tell a changed machine."""

REMEMBERED_MODELS = 1_000
"""Models come and go for years, and all of this is kept on disk; those measured longest ago are forgotten."""


@dataclass(slots=True)
class SwitchCosts:
    """Seconds from telling the old worker to leave to the new one's readiness, per model label.

    Kept by label rather than by version: a changed folder loads about as long as it did before. In the order
    of their last measurement.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, model: Model) -> float:
        """The expected cost of a switch to `model`: measured, or its first guess."""
        return self.seconds.get(model.label, model.first_guess_seconds)

    def measured(self, model: Model, seconds: float) -> None:
        """Takes one measurement in."""
        before = self.seconds.pop(model.label, seconds)
        self.seconds[model.label] = before + NEWEST_WEIGHT * (seconds - before)
        while len(self.seconds) > REMEMBERED_MODELS:
            del self.seconds[next(iter(self.seconds))]
