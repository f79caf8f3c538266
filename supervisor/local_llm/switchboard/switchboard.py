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
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType

import anyio
from anyio.abc import TaskGroup

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed as LoadFailedError
from local_llm.errors import ServiceError
from local_llm.switchboard import events
from local_llm.switchboard.events import Model, Ticket, WorkerNumber
from local_llm.switchboard.history import Record
from local_llm.switchboard.lease import Lease, Stay
from local_llm.switchboard.life import Life
from local_llm.switchboard.policy import Limits, Policy
from local_llm.switchboard.standing import Cooldown, Standing, cooldowns, standings
from local_llm.switchboard.switch_costs import SwitchCosts
from local_llm.switchboard.worker import Worker

log = logging.getLogger(__name__)


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
        check_fit: Callable[[ModelCard], Awaitable[None]] | None = None,
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
        self._lives: dict[WorkerNumber, Life] = {}
        self._leases: dict[Ticket, Lease] = {}
        self._asking: dict[Ticket, asyncio.Future[Life]] = {}
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

    def lease(self, card: ModelCard) -> Stay:
        """Waits for a worker that runs `card`, and holds it: `async with switchboard.lease(card) as lease`.

        Raises:
            ServiceError: on entering, the model cannot be had now; the error says why. On leaving, the lease
                was cut.
        """
        return Stay(card, self._take, self._give_back)

    async def _take(self, card: ModelCard) -> tuple[Ticket, Lease]:
        if self._check_fit is not None:
            await self._check_fit(card)
        asked_at = self._now()
        self._last_ticket += 1
        ticket = Ticket(self._last_ticket)
        model = self._describe(card)
        self._cards[model.key] = card
        asking: asyncio.Future[Life] = asyncio.get_running_loop().create_future()
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

    def use(self, limits: Limits, card_now: Callable[[ModelCard], ModelCard]) -> None:
        """Takes changed settings in, which `describe` knows already.

        A worker whose model they touch drains, and who waits for that model waits for a new worker of it.

        Args:
            limits: the new ones.
            card_now: gives the card of the same files as the settings have it now.
        """
        default = self._policy.limits.default_model
        keys = {each.model.key for each in self._policy.residents.values()} | self._policy.lines.keys()
        models: dict[str, Model] = {}
        for key in keys if default is None else keys | {default.key}:
            card = card_now(self._cards[key])
            models[key] = self._describe(card)
            self._cards[models[key].key] = card
        self._tell(events.SettingsAre(self._now(), limits, models))

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
                self._lives[number].order_stop(reason)

    def _begin(self, number: WorkerNumber, model: Model) -> None:
        try:
            worker = self._launch(self._cards[model.key])
        except Exception as error:  # a full disk, say: this load fails, the server stays
            log.exception("no worker could be made for %s", model.label)
            failed = LoadFailedError(f"No worker could be launched for {model.label!r}: {error}")
            self._events.append(events.LoadFailed(self._now(), number, failed))
            self._events.append(events.Gone(self._now(), number))
            return
        began_at = self._policy.residents[number].stage.since
        life = self._lives[number] = Life(number, worker, began_at, launch=self._launch, tell=self._hear)
        self._task_group.start_soon(self._accompany, number, life)

    def _answer(self, ticket: Ticket, outcome: Life | ServiceError) -> None:
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

    # One worker's life

    async def _accompany(self, number: WorkerNumber, life: Life) -> None:
        try:
            await life.live(self._wanted_bytes, self._closing)
        finally:
            del self._lives[number]
            self._tell(events.Gone(self._now(), number))
            self._forget_cards()
            self._one_gone.set()
            self._one_gone = anyio.Event()

    def _hear(self, event: events.Event) -> None:
        """What becomes of a worker."""
        self._tell(event)
        if isinstance(event, events.Loaded) and self._remember is not None:
            self._remember(self._policy.costs)

    def _forget_cards(self) -> None:
        wanted = {each.model.key for each in self._policy.residents.values()} | self._policy.lines.keys()
        default = self._policy.limits.default_model
        if default is not None:
            wanted.add(default.key)
        self._cards = {key: card for key, card in self._cards.items() if key in wanted}

    def _wanted_bytes(self) -> int | None:
        return max((line.model.need_bytes for line in self._policy.lines.values()), default=None)

    @staticmethod
    def _now() -> float:
        return time.monotonic()
