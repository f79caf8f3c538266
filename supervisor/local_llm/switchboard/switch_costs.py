"""What a switch to each model costs: measured, averaged, remembered."""

from __future__ import annotations

from dataclasses import dataclass, field

from local_llm.switchboard.events import Model

NEWEST_WEIGHT = 0.3
"""Of a new measurement in the running average: three switches tell a changed machine."""


@dataclass(slots=True)
class SwitchCosts:
    """Seconds from telling the old worker to leave to the new one's readiness, per model label.

    Kept by label rather than by version: a changed folder loads about as long as it did before.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, model: Model) -> float:
        """The expected cost of a switch to `model`: measured, or its first guess."""
        return self.seconds.get(model.label, model.first_guess_seconds)

    def measured(self, model: Model, seconds: float) -> None:
        """Takes one measurement in."""
        before = self.seconds.get(model.label)
        if before is None:
            self.seconds[model.label] = seconds
        else:
            self.seconds[model.label] = before + NEWEST_WEIGHT * (seconds - before)
