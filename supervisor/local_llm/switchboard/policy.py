"""Who is admitted, who waits, who is stopped and who is started: pure, no clock, no I/O.

`Policy.decide(event)` changes nothing but the policy's own state and returns what is to be done. The
decision tree, whose numbers the code bears:

    0. Time passes first: what was due by `event.at` is settled before a newcomer is taken in, so that none
       slips in before a drain that was due. (Other news come first: nothing is decided on a worker that is
       no more, nor for a waiter who has left.)
    1. The event:
       1.1 Arrived     refused while shutting down, while its model cools down after a failure, or when
                       as many wait as may; else it joins its model's line.
       1.2 Departed    leaves its line, or its lease ends. A load never belongs to one client.
       1.3 Loaded      the worker serves; what the switch cost is remembered.
       1.4 LoadFailed  all who wait for the model are told; the model cools down.
       1.5 Crashed     its leases are over; who waits for the model is tried on a fresh worker; after a
                       second crash in a row they are told, and the model cools down.
       1.6 Gone        its place is free.
       1.7 Unload, Forgive, DefaultIs, SettingsAre, Shutdown, Tick.
    2. Settle:
       2.1 Waiters older than `max_wait_seconds` are given up.
       2.2 Admit: a serving worker takes all who wait for it at once, oldest first, up to its limit.
       2.3 A drain that nobody needs any more is called off, and who waits for that worker is admitted.
       2.4 Make places for the models that are waited for and have no open worker, oldest line first:
           a. room now: start; room once those who go are gone: wait for that;
           b. else somebody must go: a load nobody waits for any more, or else the idle worker that was
              used least recently, at once; else one that drains already; else the one that has served
              longest, which drains once this line is due;
           c. kept models go only if nothing else could make room;
           d. while the head of the queue has no place in sight, nobody behind it takes one.
       2.5 Drains: over when the last lease is; past the deadline the rest is cut.
       2.6 Idle workers are unloaded, the default model is returned to, if so set.

When a line is due, and how long anybody waits at most, is stated in `turns.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from local_llm.errors import Overloaded, ServiceError, ShuttingDown, UpstreamDied, WaitedTooLong
from local_llm.switchboard.board import Board
from local_llm.switchboard.events import (
    Arrived,
    Crashed,
    DefaultIs,
    Departed,
    Effect,
    Event,
    Forgive,
    Gone,
    Loaded,
    LoadFailed,
    Model,
    SettingsAre,
    Shutdown,
    Tick,
    Unload,
    WorkerNumber,
)
from local_llm.switchboard.history import History
from local_llm.switchboard.idle import default_turn, outstayed
from local_llm.switchboard.limits import Limits
from local_llm.switchboard.places import Hold, hold_of
from local_llm.switchboard.residents import Draining, Line, Loading, Resident, Serving
from local_llm.switchboard.setbacks import Setbacks
from local_llm.switchboard.switch_costs import SwitchCosts
from local_llm.switchboard.turns import Turn, claims, turns

__all__ = ["Limits", "Policy"]

SETTINGS_CHANGED = "its settings have changed"


@dataclass(slots=True)
class Policy:
    """The decisions.

    Attributes:
        limits: what is allowed.
        costs: of switches, measured.
        setbacks: models that failed.
        history: what became of each model's workers, for status.
        wake_at: when something is due if nothing happens before.
        shutting_down: for good.
    """

    limits: Limits
    costs: SwitchCosts = field(default_factory=SwitchCosts)
    setbacks: Setbacks = field(default_factory=Setbacks)
    history: History = field(default_factory=History)
    wake_at: float | None = field(default=None, init=False)
    shutting_down: bool = field(default=False, init=False)
    _board: Board = field(default_factory=Board, init=False)
    _place_left_at: float | None = field(default=None, init=False)
    _default_rests: bool = field(default=False, init=False)

    @property
    def residents(self) -> dict[WorkerNumber, Resident]:
        """Every worker from its start until it is gone, to be looked at only."""
        return self._board.residents

    @property
    def lines(self) -> dict[str, Line]:
        """Those who wait, per model key, to be looked at only."""
        return self._board.lines

    @property
    def next_key(self) -> str | None:
        """Of the model to be loaded next: the oldest line's without an open worker; None: nobody waits so."""
        waiting = claims(self.residents.values(), self.lines) if self.lines else []
        return waiting[0].model.key if waiting else None

    def decide(self, event: Event) -> list[Effect]:
        """Takes one event in.

        Args:
            event: what happened; `event.at` never goes backwards.

        Returns:
            What to do, in this order. Afterwards `wake_at` says when to send a `Tick`, if nothing else
            happens before.
        """
        if not self._take_at_once(event):
            if self.lines and isinstance(event, Arrived):  # 0
                self._settle(event.at)
            self._apply(event)
            self._settle(event.at)
            self._place_left_at = None
        effects, self._board.effects = self._board.effects, []
        return effects

    def _take_at_once(self, event: Event) -> bool:
        """Takes in the arrival, or the departure, of one who finds nobody waiting and a worker that serves.

        Most requests are such, and nothing is to be decided about them: neither is anything due before it,
        nor does it change what will be. (A property test compares the two ways.)

        Returns:
            Whether it was one of these; else nothing was done.
        """
        if self.lines or self.shutting_down or (self.wake_at is not None and event.at >= self.wake_at):
            return False
        match event:
            case Arrived(at, ticket, model):
                serving = self._board.serving(model.key)
                if serving is None or self._default_rests:
                    return False
                if self.setbacks.refusal(model.key, at) is not None:
                    return False
                self._board.admit(ticket, serving, at)
                return True
            case Departed(at, ticket):
                holder = self._board.holder(ticket)
                if holder is None or not isinstance(holder.stage, Serving):
                    return False
                if len(holder.leases) == 1 and (self._idleness_counts or holder.model.idle_unload_seconds):
                    return False
                self._board.depart(ticket, at)
                return True
        return False

    @property
    def _idleness_counts(self) -> bool:
        return self.limits.idle_unload_seconds is not None or self.limits.default_model is not None

    # 1. The event

    def _apply(self, event: Event) -> None:
        match event:
            case Arrived():
                self._arrived(event)
            case Departed(at, ticket):
                self._board.depart(ticket, at)  # 1.2
            case Loaded(at, worker):
                self._loaded(self.residents[worker], at)
            case LoadFailed(at, worker, error):
                self._load_failed(self.residents[worker], at, error)
            case Crashed(at, worker, error):
                self._crashed(self.residents[worker], at, error)
            case Gone(_, worker):
                self._place_left_at = self._board.gone(worker)  # 1.6
            case Unload(at, key):
                self._unload(at, key)
            case Forgive(_, key):
                self.setbacks.forgive(key)
            case DefaultIs(_, model):
                self.limits = replace(self.limits, default_model=model)
            case SettingsAre(at, limits, models):
                self._set(limits, models, at)
            case Shutdown(at, grace_seconds):
                self._shut_down(at, grace_seconds)
            case Tick():
                pass

    def _arrived(self, event: Arrived) -> None:  # 1.1
        refusal = self._refusal(event)
        self._board.join(event.ticket, event.model, event.at)
        if refusal is not None:
            self._board.refuse(event.ticket, refusal)
        else:
            self._default_rests = False

    def _refusal(self, event: Arrived) -> ServiceError | None:
        if self.shutting_down:
            return ShuttingDown("The server is shutting down.")
        cooling = self.setbacks.refusal(event.model.key, event.at)
        if cooling is not None:
            return cooling
        line = self.lines.get(event.model.key)
        if line is None and self._board.serving(event.model.key) is not None:
            return None
        in_line = len(line.tickets) if line else 0
        if in_line < self.limits.max_waiting and self._board.waiting < self.limits.max_waiting_total:
            return None
        return Overloaded(
            f"{in_line} requests wait for {event.model.label!r} and {self._board.waiting} in all; more may "
            "not (queue.max_waiting, queue.max_waiting_total). Try again later.",
            retry_after_seconds=self._expected_wait(event.model),
        )

    def _expected_wait(self, model: Model) -> float:
        ahead = [line.model for key, line in self.lines.items() if key != model.key]
        return sum(self.costs.of(each) for each in [model, *ahead])

    def _loaded(self, resident: Resident, at: float) -> None:  # 1.3
        if isinstance(resident.stage, Loading):
            self.costs.measured(resident.model, at - resident.stage.since)
            self.setbacks.loaded(resident.model.key, at)
            self._board.serve(resident, at)

    def _load_failed(self, resident: Resident, at: float, error: ServiceError) -> None:  # 1.4
        if isinstance(resident.stage, Loading):
            self._board.leave(resident, at)
            self.setbacks.load_failed(resident.model, at, error)
            self.history.failed(resident.model.label, error.message, at)
            self._tell_line(resident.model.key, at)

    def _crashed(self, resident: Resident, at: float, error: ServiceError) -> None:  # 1.5
        if isinstance(resident.stage, Serving | Draining):
            self._board.leave(resident, at)
            self.setbacks.crashed(resident.model, at, error)
            self.history.failed(resident.model.label, error.message, at)
            self._tell_line(resident.model.key, at)

    def _tell_line(self, key: str, at: float) -> None:
        error = self.setbacks.refusal(key, at)
        if error is not None:
            self._board.refuse_line(key, error)

    def _unload(self, at: float, key: str) -> None:  # 1.7
        default = self.limits.default_model
        self._default_rests |= default is not None and default.key == key
        self._dismiss(key, at, "unload asked for")

    def _set(self, limits: Limits, models: Mapping[str, Model], at: float) -> None:  # 1.7
        default = self.limits.default_model
        now = default if default is None else models.get(default.key, default)
        self.limits = replace(limits, default_model=now)
        for key, model in models.items():
            self._board.move_line(key, model)
            if model.key != key:
                self._dismiss(key, at, SETTINGS_CHANGED)
            else:
                self._take_back(key, at)
            for resident in self._board.residents_of(model.key):
                resident.model = model

    def _take_back(self, key: str, at: float) -> None:
        """A change of settings was undone before its worker had gone."""
        for resident in self._board.residents_of(key):
            if isinstance(resident.stage, Draining) and resident.stage.reason == SETTINGS_CHANGED:
                self._board.reopen(resident)
                self._board.admit_line(resident, at)

    def _dismiss(self, key: str, at: float, reason: str) -> None:
        """Lets a model's workers go once their leases are over; a load that is waited for goes on."""
        for resident in self._board.residents_of(key):
            if hold_of(resident, self.lines) is Hold.UNWANTED:
                self._board.stop(resident, at, reason)
            else:
                self._drain(resident, at, reason, asked=True)

    def _shut_down(self, at: float, grace_seconds: float) -> None:  # 1.7
        self.shutting_down = True
        for key in list(self.lines):
            self._board.refuse_line(key, ShuttingDown("The server is shutting down."))
        for resident in self.residents.values():
            if isinstance(resident.stage, Loading):
                self._board.stop(resident, at, "shutdown")
            else:
                self._drain(resident, at, "shutdown", asked=True, within=grace_seconds)

    # 2. Settle

    def _settle(self, at: float) -> None:
        self.wake_at = None
        if self.lines:  # else nobody waits: so it is with most requests
            self._give_up_waiters(at)
            for resident in self.residents.values():  # 2.2
                if isinstance(resident.stage, Serving):
                    self._board.admit_line(resident, at)
        self._call_off_drains(at)
        if self.lines:
            self._make_places(at)
            for line in self.lines.values():
                self._wake(next(iter(line.tickets.values())) + self.limits.max_wait_seconds)  # 2.1
        self._end_drains(at)
        if not self.shutting_down:
            self._unload_idle(at)
            self._return_to_default(at)

    def _give_up_waiters(self, at: float) -> None:  # 2.1
        for line in list(self.lines.values()):
            for ticket, since in list(line.tickets.items()):
                if at < since + self.limits.max_wait_seconds:
                    break
                error = WaitedTooLong(
                    f"The request waited {at - since:.0f} s for {line.model.label!r} to be its turn "
                    "(queue.max_wait_seconds). Try again later.",
                    retry_after_seconds=self._expected_wait(line.model),
                )
                self._board.refuse(ticket, error)

    def _call_off_drains(self, at: float) -> None:  # 2.3
        draining = [each for each in self.residents.values() if each.closed_for_a_rival]
        if not draining:
            return
        needed = {each.worker for turn in self._turns(at) for each in turn.going}
        for resident in draining:
            if resident.worker not in needed:
                self._board.reopen(resident)
                self._board.admit_line(resident, at)

    def _make_places(self, at: float) -> None:  # 2.4
        for turn in self._turns(at):
            self._send_away(turn.going, at, f"{turn.model.label!r} is waited for")
            self._start_if_room(turn.model, at)

    def _turns(self, at: float) -> list[Turn]:
        found, next_due = turns(self.residents.values(), self.lines, self.limits, self.costs, at)
        self._wake(next_due)
        return found

    def _send_away(self, going: Iterable[Resident], at: float, reason: str) -> None:
        for resident in going:
            if hold_of(resident, self.lines) is Hold.UNWANTED:
                self._board.stop(resident, at, f"nobody waits for it any more, and {reason}")
            elif isinstance(resident.stage, Serving):
                self._drain(resident, at, reason)

    def _start_if_room(self, model: Model, at: float) -> None:
        taken = [each.model for each in self.residents.values()]
        if self.limits.places.hold([*taken, model]) and not any(self._board.residents_of(model.key)):
            since = at if self._place_left_at is None else self._place_left_at
            self._board.start(model, at=at, since=since)
            self.history.started(model.label)

    def _end_drains(self, at: float) -> None:  # 2.5
        for resident in self.residents.values():
            stage = resident.stage
            if not isinstance(stage, Draining):
                continue
            if not resident.leases:
                self._board.stop(resident, at, stage.reason)
            elif at < stage.deadline:
                self._wake(stage.deadline)
            else:
                self._board.cut(resident, self._cut_error(resident, at - stage.since, stage.reason))
                self._board.stop(resident, at, f"{stage.reason}; its drain deadline has passed")

    def _cut_error(self, resident: Resident, seconds: float, reason: str) -> ServiceError:
        if self.shutting_down:
            return ShuttingDown(
                f"The answer was cut: the server is shutting down, and it still ran {seconds:.0f} s later "
                "(stop.shutdown_grace_seconds)."
            )
        return UpstreamDied(
            f"The answer was cut: {resident.model.label!r} had to go ({reason}), and it still ran "
            f"{seconds:.0f} s later (queue.drain_max_seconds)."
        )

    def _unload_idle(self, at: float) -> None:  # 2.6
        over, next_due = outstayed(self.residents.values(), self.lines, self.limits, at)
        self._wake(next_due)
        for resident in over:
            self._board.stop(resident, at, f"idle for {at - resident.used_at:.0f} s")

    def _return_to_default(self, at: float) -> None:  # 2.6
        default = self.limits.default_model
        if default is None or self.lines or self._default_rests or any(self._board.residents_of(default.key)):
            return
        turn, next_due = default_turn(
            self.residents.values(), default, self.limits, not_before=self.setbacks.until(default.key), at=at
        )
        self._wake(next_due)
        if turn is not None:
            for resident in turn.going:
                self._board.stop(resident, at, f"idle, and {default.label!r} is the default")
            self._start_if_room(default, at)

    # What several decisions share

    def _drain(
        self, resident: Resident, at: float, reason: str, *, asked: bool = False, within: float | None = None
    ) -> None:
        seconds = self.limits.drain_max_seconds if within is None else within
        self._board.drain(resident, at, deadline=at + seconds, reason=reason, asked=asked)

    def _wake(self, at: float) -> None:
        if at < math.inf:
            self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
