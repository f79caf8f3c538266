"""The policy's state and its only mutators, which note the effects that belong to the changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from local_llm.errors import ServiceError
from local_llm.switchboard.events import (
    Admit,
    Cut,
    Effect,
    Model,
    Refuse,
    Start,
    Stop,
    Ticket,
    WorkerNumber,
)
from local_llm.switchboard.residents import Draining, Leaving, Line, Loading, Resident, Serving


@dataclass(slots=True)
class Board:
    """Who waits, who is served by whom, and which workers there are.

    Attributes:
        residents: every worker from its start until it is gone.
        lines: per model key, those who wait; no line is empty.
        effects: noted since they were last taken.
    """

    residents: dict[WorkerNumber, Resident] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    _waiting: dict[Ticket, str] = field(default_factory=dict)
    _leases: dict[Ticket, WorkerNumber] = field(default_factory=dict)
    _last_worker: int = 0

    # Tickets

    @property
    def waiting(self) -> int:
        """How many wait, for whatever model."""
        return len(self._waiting)

    def join(self, ticket: Ticket, model: Model, at: float) -> None:
        """Puts a ticket at the end of its model's line."""
        line = self.lines.setdefault(model.key, Line(model, since=at))
        line.tickets[ticket] = at
        self._waiting[ticket] = model.key

    def depart(self, ticket: Ticket, at: float) -> None:
        """Takes a ticket out of its line, or ends its lease. Unknown ones are ignored: they were cut."""
        if ticket in self._waiting:
            self._leave_line(ticket)
        elif ticket in self._leases:
            resident = self.residents[self._leases.pop(ticket)]
            resident.leases.discard(ticket)
            resident.used_at = at

    def refuse(self, ticket: Ticket, error: ServiceError) -> None:
        """Answers a waiting ticket with an error."""
        self._leave_line(ticket)
        self.effects.append(Refuse(ticket, error))

    def refuse_line(self, key: str, error: ServiceError) -> None:
        """Answers all who wait for a model with an error."""
        line = self.lines.get(key)
        for ticket in list(line.tickets) if line else ():
            self.refuse(ticket, error)

    def admit_line(self, resident: Resident, at: float) -> None:
        """Gives leases to those who wait for a resident's model, oldest first, up to its limit."""
        line = self.lines.get(resident.model.key)
        while line is not None and line.tickets and resident.has_room:
            ticket = next(iter(line.tickets))
            self._leave_line(ticket)
            self.admit(ticket, resident, at)

    def admit(self, ticket: Ticket, resident: Resident, at: float) -> None:
        """Gives a ticket that waits in no line a lease."""
        resident.leases.add(ticket)
        resident.used_at = at
        self._leases[ticket] = resident.worker
        self.effects.append(Admit(ticket, resident.worker))

    def holder(self, ticket: Ticket) -> Resident | None:
        """The worker that a lease is of; None: the ticket waits, or is unknown."""
        worker = self._leases.get(ticket)
        return None if worker is None else self.residents[worker]

    def move_line(self, key: str, model: Model) -> None:
        """Those who wait for the model of that key wait for `model` from now on, their places kept."""
        line = self.lines.pop(key, None)
        if line is None:
            return
        there = self.lines.get(model.key, line)
        tickets = sorted({**there.tickets, **line.tickets}.items(), key=lambda each: each[1])
        since = min(there.since, line.since)
        self.lines[model.key] = Line(model, since, line.had_turn and there.had_turn, dict(tickets))
        self._waiting.update((ticket, model.key) for ticket in line.tickets)

    def _leave_line(self, ticket: Ticket) -> None:
        key = self._waiting.pop(ticket)
        line = self.lines[key]
        del line.tickets[ticket]
        if not line.tickets:
            del self.lines[key]

    # Workers

    def residents_of(self, key: str) -> Iterator[Resident]:
        """The workers of a model; more than one only while an older one goes."""
        return (each for each in self.residents.values() if each.model.key == key)

    def serving(self, key: str) -> Resident | None:
        """The model's worker that serves and has room for one more."""
        for each in self.residents.values():
            if isinstance(each.stage, Serving) and each.model.key == key and each.has_room:
                return each
        return None

    def start(self, model: Model, *, at: float, since: float) -> None:
        """Starts a worker; the switch to it is measured from `since`."""
        self._last_worker += 1
        worker = WorkerNumber(self._last_worker)
        self.residents[worker] = Resident(worker, model, Loading(since), used_at=at)
        self.effects.append(Start(worker, model))

    def serve(self, resident: Resident, at: float) -> None:
        """A loading worker is ready."""
        resident.stage = Serving(at)
        resident.used_at = at

    def drain(self, resident: Resident, at: float, *, deadline: float, reason: str, asked: bool) -> None:
        """Closes a ready worker to newcomers. If it is closed already, the earlier deadline holds."""
        match resident.stage:
            case Serving(serving_since):
                resident.stage = Draining(at, deadline, serving_since, reason, asked)
                self._end_turn(resident, at)
            case Draining(since, earlier, serving_since):
                resident.stage = Draining(since, min(earlier, deadline), serving_since, reason, asked)

    def reopen(self, resident: Resident) -> None:
        """Calls a drain off."""
        if isinstance(resident.stage, Draining):
            resident.stage = Serving(resident.stage.serving_since)

    def cut(self, resident: Resident, error: ServiceError) -> None:
        """Breaks the leases off that are left."""
        self.effects.append(Cut(resident.worker, tuple(sorted(resident.leases)), error))

    def stop(self, resident: Resident, at: float, reason: str) -> None:
        """Ends a worker, whatever it does."""
        self.leave(resident, at)
        self.effects.append(Stop(resident.worker, reason))

    def leave(self, resident: Resident, at: float) -> None:
        """A worker ended, or is told to: its leases are over, its place is taken until it is gone."""
        for ticket in resident.leases:
            del self._leases[ticket]
        resident.leases.clear()
        if isinstance(resident.stage, Serving):
            self._end_turn(resident, at)
        resident.stage = Leaving(at)

    def gone(self, worker: WorkerNumber) -> float:
        """Nothing of a worker is left; returns when it began to leave."""
        return self.residents.pop(worker).stage.since

    def _end_turn(self, resident: Resident, at: float) -> None:
        line = self.lines.get(resident.model.key)
        if line is not None:
            line.since = at
            line.had_turn = True
