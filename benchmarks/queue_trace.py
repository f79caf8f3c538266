"""The queue's figures, in simulated time: how long the few wait behind the many, and what switches cost.

    python benchmarks/queue_trace.py

A discrete-event simulation drives the real policy with workers that load, answer and stop in given times.
The rival is the same policy with endless patience: a ready model is always served first, as llama-swap
does, so others wait until it is idle.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from local_llm.switchboard import events
from local_llm.switchboard.events import Model, Ticket, WorkerNumber
from local_llm.switchboard.policy import Limits, Policy
from local_llm.switchboard.residents import Loading, Serving

LOAD_SECONDS = 2.0
ANSWER_SECONDS = 1.5
ARRIVALS_PER_SECOND = 5.0
REQUESTS = 180
SHARE_OF_B = 0.03
SEED = 0
MORE_SEEDS = 100

A = Model(key="a", label="a", first_guess_seconds=LOAD_SECONDS)
B = Model(key="b", label="b", first_guess_seconds=LOAD_SECONDS)


@dataclass(slots=True)
class Request:
    """What became of one request.

    Attributes:
        model: what it asked for.
        arrived_at: in simulated seconds.
        switches_ahead: the k of the policy's bound; 0 if its model was being served or loaded.
        turn_at: when its model was first given leases after its arrival.
        admitted_at: when it had its lease.
    """

    model: Model
    arrived_at: float
    switches_ahead: int = 0
    turn_at: float = math.inf
    admitted_at: float = math.inf

    @property
    def waited_seconds(self) -> float:
        return self.admitted_at - self.arrived_at


@dataclass(slots=True)
class Simulation:
    """A policy among workers whose every duration is given.

    Attributes:
        policy: under test.
        load_seconds: from a worker's start to its readiness.
        answer_seconds: from a request's admission to its end.
        stop_seconds: from the order to stop to nothing left.
        requests: by ticket.
        starts: the models that were loaded, in order.
        now: simulated seconds.
    """

    policy: Policy
    load_seconds: Callable[[], float]
    answer_seconds: Callable[[], float]
    stop_seconds: Callable[[], float]
    requests: dict[Ticket, Request] = field(default_factory=dict)
    starts: list[Model] = field(default_factory=list)
    now: float = 0.0
    _agenda: list[tuple[float, int, events.Event]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=itertools.count)
    _stopped: set[WorkerNumber] = field(default_factory=set)

    def run(self, arrivals: Iterable[tuple[float, Model]]) -> list[Request]:
        """Lets all requests, given by time and model, come and be answered.

        Returns:
            The requests in their order.

        Raises:
            RuntimeError: somebody waits though nothing is left that could happen.
        """
        for number, (at, model) in enumerate(arrivals):
            self._plan(events.Arrived(at, Ticket(number), model))
        while self._agenda or self._next_wake() < math.inf:
            if self._agenda and self._agenda[0][0] <= self._next_wake():
                event = heapq.heappop(self._agenda)[2]
            else:
                event = events.Tick(self._next_wake())
            self._take_in(event)
        if self.policy.lines:
            raise RuntimeError(f"deadlock: {self.policy.lines} wait before {self.policy.residents}")
        return list(self.requests.values())

    @property
    def switches(self) -> int:
        """Loads after the first."""
        return len(self.starts) - 1

    def _next_wake(self) -> float:
        return math.inf if self.policy.wake_at is None else self.policy.wake_at

    def _plan(self, event: events.Event) -> None:
        heapq.heappush(self._agenda, (event.at, next(self._order), event))

    def _take_in(self, event: events.Event) -> None:
        self.now = event.at
        if isinstance(event, events.Arrived):
            ahead = switches_ahead(self.policy, event.model)
            self.requests[event.ticket] = Request(event.model, self.now, ahead)
        elif isinstance(event, events.Loaded) and event.worker in self._stopped:
            return
        for effect in self.policy.decide(event):
            self._carry_out(effect)

    def _carry_out(self, effect: events.Effect) -> None:
        match effect:
            case events.Start(worker, model):
                self.starts.append(model)
                self._plan(events.Loaded(self.now + self.load_seconds(), worker))
            case events.Stop(worker):
                self._stopped.add(worker)
                self._plan(events.Gone(self.now + self.stop_seconds(), worker))
            case events.Admit(ticket):
                self.requests[ticket].admitted_at = self.now
                self._note_turn(self.requests[ticket].model)
                self._plan(events.Departed(self.now + self.answer_seconds(), ticket))
            case events.Refuse(_, error):
                raise error
            case events.Cut():
                pass

    def _note_turn(self, model: Model) -> None:
        for request in self.requests.values():
            if request.model == model:
                request.turn_at = min(request.turn_at, self.now)


def switches_ahead(policy: Policy, model: Model) -> int:
    """The k of the policy's bound for a request that arrives now; 0 if its model is served or loading."""
    stages = [(each.model.key, each.stage) for each in policy.residents.values()]
    if any(key == model.key and isinstance(stage, Serving | Loading) for key, stage in stages):
        return 0
    loading = {key for key, stage in stages if isinstance(stage, Loading)}
    open_keys = loading | {key for key, stage in stages if isinstance(stage, Serving)}
    own = policy.lines.get(model.key)
    own_place = (math.inf, True) if own is None else (own.since, own.had_turn)
    ahead = {
        key
        for key, line in policy.lines.items()
        if key not in open_keys and key != model.key and (line.since, line.had_turn) <= own_place
    }
    return 1 + len(ahead | loading)


def bound_seconds(switches: int) -> float:
    """What the policy states for this trace: patience + k x (drain + load)."""
    return LOAD_SECONDS + switches * (ANSWER_SECONDS + LOAD_SECONDS)


def trace(seed: int = SEED) -> list[tuple[float, Model]]:
    """The many and the few: arrivals of a Poisson process, 97% for a, 3% for b."""
    chance = random.Random(seed)
    at = 0.0
    arrivals = []
    for _ in range(REQUESTS):
        at += chance.expovariate(ARRIVALS_PER_SECOND)
        arrivals.append((at, B if chance.random() < SHARE_OF_B else A))
    return arrivals


def alternating_crowd() -> list[tuple[float, Model]]:
    """A hundred at once, a b a b ..."""
    return [(0.0, model) for _ in range(50) for model in (A, B)]


def simulate(arrivals: Iterable[tuple[float, Model]], *, patience: float = 1.0) -> Simulation:
    """Runs the policy over arrivals, with the trace's times; endless patience makes it greedy."""
    simulation = Simulation(
        Policy(Limits(patience=patience, max_wait_seconds=math.inf)),
        load_seconds=lambda: LOAD_SECONDS,
        answer_seconds=lambda: ANSWER_SECONDS,
        stop_seconds=lambda: 0.0,
    )
    simulation.run(arrivals)
    return simulation


def late(simulation: Simulation) -> int:
    """How many waited longer than the bound says."""
    return sum(
        each.waited_seconds > bound_seconds(each.switches_ahead) + 1e-6
        for each in simulation.requests.values()
    )


def _row(name: str, *simulations: Simulation) -> str:
    cells = []
    for model in (A, B):
        waits = [
            each.waited_seconds
            for simulation in simulations
            for each in simulation.requests.values()
            if each.model is model
        ]
        cells += [f"{statistics.median(waits):10.1f}", f"{max(waits):9.1f}"]
    switches = statistics.mean(each.switches for each in simulations)
    return f"{name:22}{''.join(cells)}{sum(map(late, simulations)):11}{switches:10.0f}"


def main(more_seeds: int = MORE_SEEDS) -> None:
    """Prints the table; below the trace itself, the same with other seeds."""
    arrivals = trace()
    few = sum(model is B for _, model in arrivals)
    print(
        f"{REQUESTS} requests in {arrivals[-1][0]:.0f} s, {few} of them for b (seed {SEED}); "
        f"load {LOAD_SECONDS} s, answer {ANSWER_SECONDS} s.\n"
        f"Bound: patience + k x (drain + load): {bound_seconds(1)} s, and {bound_seconds(2)} s (k = 2) for "
        "who comes while a switch away is under way.\n"
    )
    print(
        f"{'seconds waited':22}{'a median':>10}{'longest':>9}{'b median':>10}{'longest':>9}"
        f"{'past bound':>11}{'switches':>10}"
    )
    print(_row("bounded waiting", simulate(arrivals)))
    print(_row("greedy", simulate(arrivals, patience=math.inf)))
    seeds = [trace(seed) for seed in range(more_seeds)]
    print(_row(f"bounded, {more_seeds} seeds", *[simulate(each) for each in seeds]))
    print(_row(f"greedy, {more_seeds} seeds", *[simulate(each, patience=math.inf) for each in seeds]))
    print(_row("crowd of 100, a b a b", simulate(alternating_crowd())))


if __name__ == "__main__":
    main()
