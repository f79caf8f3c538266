"""The one owner of who is served: tells the policy what happens, and does what it decides.

Nobody else writes this state, and nobody asks for it and then acts: a request awaits an outcome
(`async with switchboard.lease(card) as lease`). Everything happens on one event loop; `_tell` takes one
event at a time and carries its effects out before the next, so no lock is needed and a request for a
model that serves gets its lease without waiting for a turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed as LoadFailedError
from local_llm.errors import PortTaken, ServiceError, UpstreamDied, WarmStartFailed
from local_llm.switchboard import events
from local_llm.switchboard.events import Model, Ticket, WorkerNumber
from local_llm.switchboard.history import Record
from local_llm.switchboard.policy import Limits, Policy
from local_llm.switchboard.standing import Cooldown, Standing, cooldowns, standings
from local_llm.switchboard.switch_costs import SwitchCosts
from local_llm.switchboard.worker import Worker

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lease:
    """The right to use a worker, until the `async with` that gave it is left.

    Attributes:
        worker: ready when the lease was granted.
        waited_seconds: from asking for the lease to having it.
        switch_seconds: the part of it in which the worker was being switched to.
        holder: the task that has it; it is cancelled when the lease is cut. (A cancel scope of anyio's would
            take a tenth of a small request's time.)
        cut: why it was cut, if it was.
    """

    worker: Worker
    waited_seconds: float
    switch_seconds: float
    holder: asyncio.Task[Any]
    cut: ServiceError | None = None


class _Stay:
    """One lease from asking for it to giving it back. (A generator made a context would take half as long
    again as what it does.)"""

    __slots__ = ("_card", "_give_back", "_lease", "_take", "_ticket")

    def __init__(
        self,
        card: ModelCard,
        take: Callable[[ModelCard], Awaitable[tuple[Ticket, Lease]]],
        give_back: Callable[[Ticket], None],
    ) -> None:
        self._card = card
        self._take = take
        self._give_back = give_back

    async def __aenter__(self) -> Lease:
        self._ticket, self._lease = await self._take(self._card)
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back(self._ticket)
        lease = self._lease
        if lease.cut is None or not (kind is None or issubclass(kind, asyncio.CancelledError)):
            return
        if kind is not None and sys.version_info >= (3, 11):
            lease.holder.uncancel()
        raise lease.cut


@dataclass(slots=True)
class _Life:
    """A worker, when the switch to it began and ended, and the order to stop it."""

    worker: Worker
    began_at: float
    ready_at: float = math.inf
    stop_ordered: anyio.Event = field(default_factory=anyio.Event)
    stop_reason: str = "it ended"


class Switchboard:
    """Owns all workers.

    Args:
        limits: of the policy.
        launch: makes a worker, not yet started, for a card.
        describe: what the policy must know of a card.
        check_fit: raises a ServiceError for a card that can never be loaded here, before anything is stopped
            for it.
        costs: of switches, from earlier runs.
        remember: called with all costs when one was measured.
        foresee: called with the card that will be loaded next when that becomes another one; None: none.

    Use as an asynchronous context manager; leaving it ends all workers.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        launch: Callable[[ModelCard], Worker],
        describe: Callable[[ModelCard], Model],
        check_fit: Callable[[ModelCard], None] | None = None,
        costs: SwitchCosts | None = None,
        remember: Callable[[SwitchCosts], None] | None = None,
        foresee: Callable[[ModelCard | None], None] | None = None,
    ) -> None:
        self._policy = Policy(limits, costs or SwitchCosts())
        self._remember = remember
        self._foresee = foresee
        self._foreseen: str | None = None
        self._launch = launch
        self._describe = describe
        self._check_fit = check_fit
        self._cards: dict[str, ModelCard] = {}
        self._lives: dict[WorkerNumber, _Life] = {}
        self._leases: dict[Ticket, Lease] = {}
        self._asking: dict[Ticket, asyncio.Future[_Life]] = {}
        self._last_ticket = 0
        self._events: deque[events.Event] = deque()
        self._telling = False
        self._timer: asyncio.TimerHandle | None = None
        self._one_gone = anyio.Event()
        self._closing = anyio.Event()
        self._task_group: TaskGroup

    async def __aenter__(self) -> Switchboard:
        self._task_group = anyio.create_task_group()
        await self._task_group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self.shut_down(grace_seconds=0)
        if self._timer is not None:
            self._timer.cancel()
        return await self._task_group.__aexit__(kind, error, trace)

    async def shut_down(self, *, grace_seconds: float) -> None:
        """Refuses who waits, lets leases end within the grace, ends all workers; returns when none is left.

        May be called again, with a shorter grace, while it runs.
        """
        self._closing.set()
        self._tell(events.Shutdown(self._now(), grace_seconds))
        while self._policy.residents:
            await self._one_gone.wait()

    def lease(self, card: ModelCard) -> _Stay:
        """Waits for a worker that runs `card`, and holds it: `async with switchboard.lease(card) as lease`.

        Raises:
            ServiceError: on entering, the model cannot be had now; the error says why. On leaving, the lease
                was cut.
        """
        return _Stay(card, self._take, self._give_back)

    async def _take(self, card: ModelCard) -> tuple[Ticket, Lease]:
        if self._check_fit is not None:
            self._check_fit(card)
        asked_at = self._now()
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        model = self._describe(card)
        self._cards[model.key] = card
        asking: asyncio.Future[_Life] = asyncio.get_running_loop().create_future()
        self._asking[ticket] = asking
        self._tell(events.Arrived(asked_at, ticket, model))
        holder = asyncio.current_task()
        assert holder is not None  # noqa: S101 - who awaits is a task
        try:
            life = await asking
        except BaseException:
            self._give_back(ticket)
            raise
        granted_at = self._now()
        switch_seconds = max(0.0, life.ready_at - max(asked_at, life.began_at))
        lease = Lease(life.worker, granted_at - asked_at, switch_seconds, holder)
        self._leases[ticket] = lease
        return ticket, lease

    def _give_back(self, ticket: Ticket) -> None:
        self._asking.pop(ticket, None)
        self._leases.pop(ticket, None)
        self._tell(events.Departed(self._now(), ticket))

    async def load(self, card: ModelCard) -> None:
        """Loads a model though no request wants it yet; returns when it is ready.

        Raises:
            ServiceError: it cannot be loaded now.
        """
        self._tell(events.Forgive(self._now(), self._describe(card).key))
        async with self.lease(card):
            pass

    def load_soon(self, card: ModelCard) -> None:
        """The same in the background; a failure is logged."""
        self._task_group.start_soon(self._load_and_log, card)

    async def _load_and_log(self, card: ModelCard) -> None:
        try:
            await self.load(card)
        except ServiceError as error:
            log.warning("%s could not be loaded: %s", card.id, error)

    def unload(self, model_id: str) -> int:
        """Lets the model's workers, of whatever version, go once their leases are over.

        Returns:
            How many workers it has.
        """
        keys = {each.model.key for each in self._policy.residents.values() if each.model.label == model_id}
        default = self._policy.limits.default_model
        resting = {default.key} if default is not None and default.label == model_id else set()
        for key in keys | resting:
            self._tell(events.Unload(self._now(), key))
        return len(keys)

    def set_default(self, card: ModelCard | None) -> None:
        """Says what to return to when nobody wants anything else; None: nothing, for now."""
        model = None if card is None else self._describe(card)
        if card is not None and model is not None:
            self._cards[model.key] = card
        self._tell(events.DefaultIs(self._now(), model))

    def standings(self) -> list[Standing]:
        """Every worker, for status; not to be acted upon."""
        workers = {number: life.worker for number, life in self._lives.items()}
        return standings(self._policy, workers, self._now())

    def waiting(self) -> dict[str, int]:
        """How many wait, per model label; models nobody waits for are left out."""
        return {line.model.label: len(line.tickets) for line in self._policy.lines.values()}

    def cooldowns(self) -> list[Cooldown]:
        """The models that are left alone because they failed."""
        return cooldowns(self._policy, self._now())

    def costs(self) -> Mapping[str, float]:
        """Measured seconds of a switch to each model, by id."""
        return self._policy.costs.seconds

    def history(self) -> Mapping[str, Record]:
        """What became of each model's workers, by id."""
        return self._policy.history.records

    def waiting_in_words(self, card: ModelCard) -> str:
        """What a request for `card` waits for at this moment, for people."""
        lives = list(self._lives.values())
        for life in lives:
            if life.worker.card.id == card.id and life.ready_at == math.inf:
                return f"loading {card.id}: {life.worker.progress.in_words()}"
        others = ", ".join(life.worker.card.id for life in lives)
        return f"{card.id} waits for its turn" + (f" after {others}" if others else "")

    # Events in, effects out

    def _tell(self, event: events.Event) -> None:
        """Takes an event in; if one is being carried out right now, after that."""
        self._events.append(event)
        if self._telling:
            return
        self._telling = True
        try:
            while self._events:
                for effect in self._policy.decide(self._events.popleft()):
                    self._carry_out(effect)
        finally:
            self._telling = False
        self._set_timer()
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Tells, when it changes, whose turn is next."""
        key = self._policy.next_key
        if key != self._foreseen and self._foresee is not None:
            self._foreseen = key
            self._foresee(None if key is None else self._cards[key])

    def _carry_out(self, effect: events.Effect) -> None:
        match effect:
            case events.Admit(ticket, number):
                self._answer(ticket, self._lives[number])
            case events.Refuse(ticket, error):
                self._answer(ticket, error)
            case events.Start(number, model):
                self._begin(number, model)
            case events.Cut(_, tickets, error):
                for ticket in tickets:
                    self._cut(ticket, error)
            case events.Stop(number, reason):
                life = self._lives[number]
                life.stop_reason = reason
                life.stop_ordered.set()

    def _begin(self, number: WorkerNumber, model: Model) -> None:
        try:
            worker = self._launch(self._cards[model.key])
        except Exception as error:  # a full disk, say: this load fails, the server stays
            log.exception("no worker could be made for %s", model.label)
            failed = LoadFailedError(f"No worker could be launched for {model.label!r}: {error}")
            self._events.append(events.LoadFailed(self._now(), number, failed))
            self._events.append(events.Gone(self._now(), number))
            return
        life = self._lives[number] = _Life(worker, self._policy.residents[number].stage.since)
        self._task_group.start_soon(self._live, number, life)

    def _answer(self, ticket: Ticket, outcome: _Life | ServiceError) -> None:
        asking = self._asking.pop(ticket)
        if asking.cancelled():  # the client left in this very turn of the loop; its Departed follows
            return
        if isinstance(outcome, ServiceError):
            asking.set_exception(outcome)
        else:
            asking.set_result(outcome)

    def _cut(self, ticket: Ticket, error: ServiceError) -> None:
        lease = self._leases.get(ticket)
        if lease is not None:
            lease.cut = error
            lease.holder.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._policy.wake_at is not None:
            loop = asyncio.get_running_loop()
            delay = max(0.0, self._policy.wake_at - self._now())
            self._timer = loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._tell(events.Tick(self._now()))

    # One worker's life, from launch to nothing left

    async def _live(self, number: WorkerNumber, life: _Life) -> None:
        try:
            async with anyio.create_task_group() as race:
                race.start_soon(self._cancel_when_ordered, life, race)
                await self._serve(number, life)
                race.cancel_scope.cancel()
        except Exception as error:  # whatever it was: the worker goes, the server stays
            log.exception("worker %s failed unexpectedly", life.worker.worker_id)
            failed = LoadFailedError(f"The worker of {life.worker.card.id!r} failed: {error!r}")
            self._tell(events.LoadFailed(self._now(), number, failed))  # of these two,
            self._tell(events.Crashed(self._now(), number, failed))  # the one that does not apply is ignored
        finally:
            with anyio.CancelScope(shield=True):
                await self._bury(number, life)

    async def _cancel_when_ordered(self, life: _Life, race: TaskGroup) -> None:
        await life.stop_ordered.wait()
        race.cancel_scope.cancel()

    async def _serve(self, number: WorkerNumber, life: _Life) -> None:
        try:
            await self._start(life)
        except ServiceError as error:
            self._tell(events.LoadFailed(self._now(), number, error))
            return
        worker = life.worker
        life.ready_at = self._now()
        self._tell(events.Loaded(life.ready_at, number))
        if self._remember is not None:
            self._remember(self._policy.costs)
        ended = await worker.wait_ended()
        lines = "\n".join(worker.last_lines(8))
        words = ended.in_words()
        message = f"The worker of {worker.card.id!r} crashed: it {words}. Its last lines:\n{lines}"
        log.warning("worker %s of %s %s", worker.worker_id, worker.card.id, words)
        self._tell(events.Crashed(self._now(), number, UpstreamDied(message)))

    async def _start(self, life: _Life) -> None:
        """Starts the life's worker; a fresh one if the first one's port was taken, or its template was bad.

        Raises:
            ServiceError: it did not become ready.
        """
        try:
            await life.worker.start()
        except (PortTaken, WarmStartFailed) as error:
            why = "its port was taken" if isinstance(error, PortTaken) else "its warm start failed"
            log.warning("worker %s: %s; another is tried", life.worker.worker_id, why)
            life.worker = self._launch(life.worker.card)
            await life.worker.start()

    async def _bury(self, number: WorkerNumber, life: _Life) -> None:
        try:
            await life.worker.stop(reason=life.stop_reason)
            await self._memory_back(life.worker)
        except Exception:  # its place must become free all the same
            log.exception("worker %s could not be stopped cleanly", life.worker.worker_id)
        del self._lives[number]
        self._tell(events.Gone(self._now(), number))
        wanted = {each.model.key for each in self._policy.residents.values()} | self._policy.lines.keys()
        default = self._policy.limits.default_model
        if default is not None:
            wanted.add(default.key)
        self._cards = {key: card for key, card in self._cards.items() if key in wanted}
        self._one_gone.set()
        self._one_gone = anyio.Event()

    async def _memory_back(self, worker: Worker) -> None:
        """Not while the server ends, when nobody needs it."""
        async with anyio.create_task_group() as race:
            race.start_soon(self._cancel_when_closing, race)
            await worker.memory_back(self._wanted_bytes)
            race.cancel_scope.cancel()

    async def _cancel_when_closing(self, race: TaskGroup) -> None:
        await self._closing.wait()
        race.cancel_scope.cancel()

    def _wanted_bytes(self) -> int | None:
        return max((line.model.need_bytes for line in self._policy.lines.values()), default=None)

    @staticmethod
    def _now() -> float:
        return time.monotonic()
