"""The state the policy decides on: workers with their stages, and the lines before them.

Start ─▶ Loading ──Loaded──▶ Serving ◀──called off──┐
            │                   │ └────drain───▶ Draining
            │                   │ idle               │ drained, or the deadline passed
            └── failed, ────────┴────────┬───────────┘
                given up                 ▼
                                      Leaving ──Gone──▶ (no more)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from local_llm.switchboard.events import Model, Ticket, WorkerNumber


@dataclass(frozen=True, slots=True)
class Loading:
    """Started, not ready. `since` counts from when its predecessor was told to leave: the switch."""

    since: float


@dataclass(frozen=True, slots=True)
class Serving:
    """Ready, open to all who ask for its model."""

    since: float


@dataclass(frozen=True, slots=True)
class Draining:
    """Ready, closed to newcomers; ends with its last lease, or at the deadline.

    Attributes:
        since: when it was closed.
        deadline: when what still runs is cut.
        serving_since: when it became ready; if the drain is called off, it goes on from there.
        reason: why it has to go, for people.
        asked: a person asked for it, so it is not called off.
    """

    since: float
    deadline: float
    serving_since: float
    reason: str
    asked: bool


@dataclass(frozen=True, slots=True)
class Leaving:
    """Told to end, or ended; its place is taken until it is gone."""

    since: float


Stage: TypeAlias = Loading | Serving | Draining | Leaving


@dataclass(slots=True)
class Resident:
    """A worker that takes a place.

    Attributes:
        worker: its number.
        model: what it runs.
        stage: where in its life it is.
        used_at: when it last took or finished a request.
        leases: the requests it works on.
    """

    worker: WorkerNumber
    model: Model
    stage: Stage
    used_at: float
    leases: set[Ticket] = field(default_factory=set)

    @property
    def closed_for_a_rival(self) -> bool:
        """Whether its drain is called off when the rival needs no place any more."""
        return isinstance(self.stage, Draining) and not self.stage.asked

    @property
    def goes_anyway(self) -> bool:
        """Whether its place will be free without a further decision."""
        return isinstance(self.stage, Leaving) or (isinstance(self.stage, Draining) and self.stage.asked)

    @property
    def has_room(self) -> bool:
        """Whether it may take one more request."""
        limit = self.model.max_concurrent
        return limit is None or len(self.leases) < limit


@dataclass(slots=True)
class Line:
    """Those who wait for one model, oldest first.

    Attributes:
        model: what they wait for.
        since: from when the line's age counts: since then, somebody has waited for the model at every
            moment without its having had a turn. (The oldest ticket's age would not do: clients that give
            up early and ask again would keep a line young for ever.)
        had_turn: it is what a turn of the model left behind.
        tickets: with the time each came.
    """

    model: Model
    since: float
    had_turn: bool = False
    tickets: dict[Ticket, float] = field(default_factory=dict)
