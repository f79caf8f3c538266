"""A small world around the policy: it does what the policy says, and checks each effect as it does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from local_llm.errors import LoadFailed as LoadFailedError
from local_llm.errors import ServiceError, UpstreamDied
from local_llm.switchboard import events
from local_llm.switchboard.events import Effect, Event, Model, Ticket, WorkerNumber
from local_llm.switchboard.policy import Limits, Policy
from local_llm.switchboard.residents import Draining


def model(name: str, **facts: object) -> Model:
    """A model whose switch is guessed to cost 10 s."""
    return Model(**{"key": name, "label": name, "first_guess_seconds": 10.0, **facts})  # type: ignore[arg-type]


@dataclass(slots=True)
class Running:
    """A worker as the world sees it."""

    model: Model
    ready: bool = False
    ended: bool = False
    leases: set[Ticket] = field(default_factory=set)
    closed_at: float | None = None


class Deliberate(Policy):
    """Takes the long way with each event; what it decides must be the same."""

    def _take_at_once(self, event: Event) -> bool:
        return False


class World:
    """Carries effects out and checks them; every event of a story is one method.

    Attributes:
        workers: by number, until they are gone.
        waiting: tickets without an answer, with the model they want.
        admitted: which worker each ticket was admitted to.
        refused: the error each refused ticket got.
        effects: of the last event.
        starts: labels of all models started, in order.
    """

    def __init__(self, **limits: object) -> None:
        self.limits = Limits(**limits)  # type: ignore[arg-type]
        self.policy = Policy(self.limits)
        self._deliberate = Deliberate(self.limits)
        self.now = 0.0
        self.workers: dict[WorkerNumber, Running] = {}
        self.waiting: dict[Ticket, Model] = {}
        self.admitted: dict[Ticket, WorkerNumber] = {}
        self.refused: dict[Ticket, ServiceError] = {}
        self.effects: list[Effect] = []
        self.starts: list[str] = []
        self.cut: set[Ticket] = set()
        self.shutdown_deadline = float("inf")
        self._last_ticket = 0
        self._last_worker = 0

    # What happens

    def arrive(self, wanted: Model) -> Ticket:
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        self.waiting[ticket] = wanted
        self.tell(events.Arrived(self.now, ticket, wanted))
        return ticket

    def depart(self, ticket: Ticket) -> None:
        """A waiter leaves, or a request is over."""
        self.waiting.pop(ticket, None)
        for worker in self.workers.values():
            worker.leases.discard(ticket)
        self.tell(events.Departed(self.now, ticket))

    def loaded(self, number: WorkerNumber | None = None) -> WorkerNumber:
        """A worker, by default the one that loads, is ready."""
        number = number or self.loading()[0]
        self.workers[number].ready = True
        self.tell(events.Loaded(self.now, number))
        return number

    def load_failed(self, number: WorkerNumber | None = None, *, gone: bool = True) -> None:
        number = number or self.loading()[0]
        self.workers[number].ended = True
        self.tell(events.LoadFailed(self.now, number, LoadFailedError("out of memory")))
        if gone:
            self.gone(number)

    def crashed(self, number: WorkerNumber, *, gone: bool = True) -> None:
        worker = self.workers[number]
        worker.ready, worker.ended = False, True
        self.tell(events.Crashed(self.now, number, UpstreamDied("killed")))
        if gone:
            self.gone(number)

    def gone(self, number: WorkerNumber | None = None) -> None:
        """Nothing of a worker, by default the one that ended, is left."""
        number = number or self.ending()[0]
        del self.workers[number]
        self.tell(events.Gone(self.now, number))

    def unload(self, unwanted: Model) -> None:
        self.tell(events.Unload(self.now, unwanted.key))

    def forgive(self, failed: Model) -> None:
        self.tell(events.Forgive(self.now, failed.key))

    def default_is(self, found: Model | None) -> None:
        self.tell(events.DefaultIs(self.now, found))

    def settings_are(self, models: dict[str, Model], **limits: object) -> None:
        """What is known of models by their key, and some limits, become others."""
        self.limits = replace(self.limits, **limits)  # type: ignore[arg-type]
        self.waiting = {ticket: models.get(each.key, each) for ticket, each in self.waiting.items()}
        for running in self.workers.values():
            now = models.get(running.model.key, running.model)
            running.model = now if now.key == running.model.key else running.model
        self.tell(events.SettingsAre(self.now, self.limits, models))

    def shut_down(self, grace_seconds: float = 30.0) -> None:
        self.shutdown_deadline = min(self.shutdown_deadline, self.now + grace_seconds)
        self.tell(events.Shutdown(self.now, grace_seconds))

    def advance(self, seconds: float) -> None:
        """Time passes, with a tick whenever the policy asked for one."""
        until = self.now + seconds
        while self.policy.wake_at is not None and self.policy.wake_at <= until:
            self.now = self.policy.wake_at
            self.tick()
        self.now = until

    def tick(self) -> None:
        self.tell(events.Tick(self.now))

    # What stories ask

    def loading(self) -> list[WorkerNumber]:
        return [number for number, each in self.workers.items() if not each.ready and not each.ended]

    def ending(self) -> list[WorkerNumber]:
        return [number for number, each in self.workers.items() if each.ended]

    def running(self, wanted: Model) -> WorkerNumber:
        """The worker of a model that was not told to end."""
        (number,) = (n for n, each in self.workers.items() if each.model == wanted and not each.ended)
        return number

    def serve(self, wanted: Model) -> WorkerNumber:
        """A story begins with a worker that is ready and idle."""
        ticket = self.arrive(wanted)
        number = self.loaded(self.running(wanted))
        self.depart(ticket)
        return number

    def labels(self) -> set[str]:
        """The models with a worker that was not told to end."""
        return {each.model.label for each in self.workers.values() if not each.ended}

    # The effects, carried out and checked

    def tell(self, event: Event) -> None:
        self.effects = self.policy.decide(event)
        assert list(map(repr, self.effects)) == list(map(repr, self._deliberate.decide(event)))
        assert self.policy.residents == self._deliberate.residents
        for effect in self.effects:
            self._carry_out(effect)
        self._note_drains()
        assert set(self.policy.residents) == set(self.workers)
        assert {t for line in self.policy.lines.values() for t in line.tickets} == set(self.waiting)
        assert self.policy.wake_at is None or self.policy.wake_at > self.now, "a tick that changes nothing"

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case events.Admit(ticket, number):
                self._admit(ticket, self.workers[number])
                self.admitted[ticket] = number
            case events.Refuse(ticket, error):
                del self.waiting[ticket]
                self.refused[ticket] = error
            case events.Start(number, started):
                self._start(number, started)
            case events.Cut(number, tickets, _):
                self._cut(self.workers[number], set(tickets))
            case events.Stop(number):
                worker = self.workers[number]
                assert not worker.ended, "stopped twice, or stopped after it ended"
                assert not worker.leases, "stopped with leases that were not cut"
                worker.ended, worker.ready = True, False

    def _admit(self, ticket: Ticket, worker: Running) -> None:
        assert worker.ready
        assert self.waiting.pop(ticket) == worker.model
        worker.leases.add(ticket)
        limit = worker.model.max_concurrent
        assert limit is None or len(worker.leases) <= limit

    def _start(self, number: WorkerNumber, started: Model) -> None:
        assert number > self._last_worker, "a worker's number is never used twice"
        assert self.now < self.shutdown_deadline or self.shutdown_deadline == float("inf")
        assert all(each.model != started for each in self.workers.values()), "two workers of one model"
        self._last_worker = number
        self.workers[number] = Running(started)
        self.starts.append(started.label)
        models = [each.model for each in self.workers.values()]
        assert len(models) <= self.limits.max_models
        if self.limits.capacity_bytes is not None and len(models) > 1:
            assert sum(each.need_bytes for each in models) <= self.limits.capacity_bytes

    def _cut(self, worker: Running, tickets: set[Ticket]) -> None:
        assert tickets == worker.leases
        closed_at = self.now if worker.closed_at is None else worker.closed_at
        deadline = min(closed_at + self.limits.drain_max_seconds, self.shutdown_deadline)
        assert self.now >= deadline, "cut before the drain deadline"
        worker.leases.clear()
        self.cut |= tickets

    def _note_drains(self) -> None:
        for number, resident in self.policy.residents.items():
            worker = self.workers[number]
            if not isinstance(resident.stage, Draining):
                worker.closed_at = None
            elif worker.closed_at is None:
                worker.closed_at = self.now
