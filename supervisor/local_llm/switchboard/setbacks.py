"""Models that failed, and how long they are left alone: no crash is retried in a loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from local_llm.errors import LoadFailed as LoadFailedError
from local_llm.errors import ServiceError
from local_llm.switchboard.events import Model

FIRST_COOLDOWN_SECONDS = 10.0
LONGEST_COOLDOWN_SECONDS = 300.0
STEADY_SECONDS = 60.0
"""A model that failed later than this after it was ready had recovered: the failure is a first one."""
REMEMBERED_SECONDS = 3600.0
"""After a cooldown. A failure later than that is a first one, too."""


@dataclass(frozen=True, slots=True)
class Setback:
    """Whose it is, how often in a row a model failed, until when it is left alone, the last reason, and
    when it was ready again."""

    label: str
    count: int
    until: float
    message: str  # not the error itself: its traceback holds the dead worker and all it knew
    ready_at: float = math.inf


@dataclass(slots=True)
class Setbacks:
    """Per model key. A changed folder has a new key, and thereby a clean slate."""

    by_key: dict[str, Setback] = field(default_factory=dict)

    def refusal(self, key: str, at: float) -> ServiceError | None:
        """The error that a request for `key` gets at `at`, or None if it may be tried."""
        setback = self.by_key.get(key)
        if setback is None or at >= setback.until:
            return None
        left = setback.until - at
        return LoadFailedError(
            f"{setback.message}\nIt is tried again in {left:.0f} s at the earliest "
            f"({setback.count} failures in a row).",
            retry_after_seconds=left,
        )

    def until(self, key: str) -> float:
        """Until when a model is left alone; long past if it did not fail."""
        setback = self.by_key.get(key)
        return setback.until if setback else -math.inf

    def loaded(self, key: str, at: float) -> None:
        """A worker of the model is ready."""
        if key in self.by_key:
            self.by_key[key] = replace(self.by_key[key], ready_at=at)

    def cooling(self, at: float) -> list[Setback]:
        """The models that are left alone at `at`."""
        return [each for each in self.by_key.values() if at < each.until]

    def load_failed(self, model: Model, at: float, error: ServiceError) -> None:
        """A load failed: the model is left alone for a while, longer each time."""
        self._note(model, at, error, free=0)

    def crashed(self, model: Model, at: float, error: ServiceError) -> None:
        """A ready worker crashed. Once may be the request's fault; from the second on it cools down."""
        self._note(model, at, error, free=1)

    def forgive(self, key: str) -> None:
        """Forgets what was."""
        self.by_key.pop(key, None)

    def _note(self, model: Model, at: float, error: ServiceError, *, free: int) -> None:
        for each, setback in list(self.by_key.items()):
            forgotten = at > setback.until + REMEMBERED_SECONDS or at >= setback.ready_at + STEADY_SECONDS
            replaced = setback.label == model.label and each != model.key and at >= setback.until
            if forgotten or replaced:
                del self.by_key[each]
        count = self.by_key[model.key].count + 1 if model.key in self.by_key else 1
        until = at + _cooldown_seconds(count - free)
        self.by_key[model.key] = Setback(model.label, count, until, error.message)


def _cooldown_seconds(failures: int) -> float:
    seconds = FIRST_COOLDOWN_SECONDS
    for _ in range(failures - 1):
        seconds *= 2
        if seconds >= LONGEST_COOLDOWN_SECONDS:
            return LONGEST_COOLDOWN_SECONDS
    return seconds if failures > 0 else 0.0
