"""The policy's vocabulary: what it is told (events) and what it wants done (effects).

All are plain values. Times are seconds of one monotonic clock and come from outside; the policy has no
clock of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType, TypeAlias

from local_llm.errors import ServiceError

if TYPE_CHECKING:
    from local_llm.switchboard.limits import Limits

Ticket = NewType("Ticket", int)
"""One request's place in line, and later its lease."""

WorkerNumber = NewType("WorkerNumber", int)
"""One worker, never used twice."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the policy must know of a model.

    Attributes:
        key: one version of one model: its names, its files, and what the settings say of its worker. A
            changed folder is another model, and so is one whose settings changed.
        label: for people.
        first_guess_seconds: what a switch to it may cost, until one was measured.
        need_bytes: of device memory; 0 if not known.
        max_concurrent: requests its worker takes at a time; None: as many as come.
        kept: not stopped for another model while anything else can make room, nor when idle.
        idle_unload_seconds: in place of the limits'; 0: never.
    """

    key: str
    label: str
    first_guess_seconds: float = 30.0
    need_bytes: int = 0
    max_concurrent: int | None = None
    kept: bool = False
    idle_unload_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request asks for a model."""

    at: float
    ticket: Ticket
    model: Model


@dataclass(frozen=True, slots=True)
class Departed:
    """A waiter gave up, or a lease is over. Unknown tickets are ignored: it may have been cut."""

    at: float
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Loaded:
    """A started worker is ready."""

    at: float
    worker: WorkerNumber


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A started worker did not become ready. `Gone` follows."""

    at: float
    worker: WorkerNumber
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Crashed:
    """A ready worker ended unasked. `Gone` follows."""

    at: float
    worker: WorkerNumber
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Gone:
    """Nothing of a worker is left, and its memory is back."""

    at: float
    worker: WorkerNumber


@dataclass(frozen=True, slots=True)
class Unload:
    """Somebody asked that a model be unloaded, once its leases are over.

    A load that somebody waits for goes on. The default model stays away until the next request comes.
    """

    at: float
    key: str


@dataclass(frozen=True, slots=True)
class Forgive:
    """A model's failures are forgotten: somebody knows that it is better now."""

    at: float
    key: str


@dataclass(frozen=True, slots=True)
class DefaultIs:
    """The model to return to, in the version that its folder has now; None: there is none to load.

    An older version that runs is another model: it makes way like any other, once idle for long enough.
    """

    at: float
    model: Model | None


@dataclass(frozen=True, slots=True)
class SettingsAre:
    """The settings have changed.

    Attributes:
        limits: the new ones; their default model is passed over.
        models: by their key, the models with a worker or a line of which the settings say something else
            now. Under a new key, a worker that runs drains, and who waits, waits for the new one.
    """

    at: float
    limits: Limits
    models: Mapping[str, Model]


@dataclass(frozen=True, slots=True)
class Shutdown:
    """No more is admitted; all workers go, after `grace_seconds` even with leases.

    May be repeated: the earliest deadline holds.
    """

    at: float
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; sent at the latest at `Policy.wake_at`."""

    at: float


Event: TypeAlias = (
    Arrived
    | Departed
    | Loaded
    | LoadFailed
    | Crashed
    | Gone
    | Unload
    | Forgive
    | DefaultIs
    | SettingsAre
    | Shutdown
    | Tick
)


@dataclass(frozen=True, slots=True)
class Admit:
    """The ticket's request may go to the worker: it holds a lease until `Departed`."""

    ticket: Ticket
    worker: WorkerNumber


@dataclass(frozen=True, slots=True)
class Refuse:
    """The ticket is answered with an error."""

    ticket: Ticket
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Start:
    """Launch a worker. Answered by `Loaded` or `LoadFailed`; after a `Stop` meanwhile, `Gone` is enough."""

    worker: WorkerNumber
    model: Model


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the worker's leases off: its drain deadline has passed. `Stop` follows."""

    worker: WorkerNumber
    tickets: tuple[Ticket, ...]
    error: ServiceError


@dataclass(frozen=True, slots=True)
class Stop:
    """End the worker, whatever it does. Answered by `Gone`."""

    worker: WorkerNumber
    reason: str


Effect: TypeAlias = Admit | Refuse | Start | Cut | Stop
