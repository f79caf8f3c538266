"""For any sequence of arrivals, departures, load results, deaths and times: what must hold, holds.

`World` checks each effect: only ready workers take requests, none is stopped with leases before its drain
deadline, no place is given twice, each ticket is answered once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from benchmarks.queue_trace import Simulation
from local_llm.switchboard.events import Model
from local_llm.switchboard.policy import Limits, Policy
from tests.supervisor.switchboard.world import World, model

NAMES = "abcde"


@st.composite
def crowds(draw: st.DrawFn, *, kept: bool = True) -> list[Model]:
    """Two to five different models."""
    return [
        model(
            name,
            first_guess_seconds=draw(st.floats(0.5, 20)),
            need_bytes=draw(st.integers(0, 12)),
            max_concurrent=draw(st.sampled_from([None, None, 1, 2])),
            kept=kept and draw(st.booleans()),
        )
        for name in NAMES[: draw(st.integers(2, 5))]
    ]


class AnyWorld(RuleBasedStateMachine):
    """Whatever may happen happens in any order."""

    @initialize(
        models=crowds(),
        max_models=st.integers(1, 3),
        capacity=st.sampled_from([None, 10, 15]),
        patience=st.sampled_from([0.0, 1.0, 5.0]),
        drain_max=st.sampled_from([0.0, 5.0, 600.0]),
        max_wait=st.sampled_from([30.0, 600.0]),
        idle_unload=st.sampled_from([None, 0.0, 20.0]),
        default_after=st.sampled_from([None, 0.0, 20.0]),
    )
    def begin(
        self,
        models: list[Model],
        max_models: int,
        capacity: int | None,
        patience: float,
        drain_max: float,
        max_wait: float,
        idle_unload: float | None,
        default_after: float | None,
    ) -> None:
        self.models = models
        self.changes = 0
        self.world = World(
            max_models=max_models,
            capacity_bytes=capacity,
            patience=patience,
            drain_max_seconds=drain_max,
            max_waiting=6,
            max_waiting_total=12,
            max_wait_seconds=max_wait,
            idle_unload_seconds=idle_unload,
            default_model=None if default_after is None else models[0],
            default_model_after_seconds=default_after or 0.0,
        )

    @rule(which=st.integers(0, 4))
    def arrive(self, which: int) -> None:
        self.world.arrive(self.models[which % len(self.models)])

    @rule(which=st.integers(0, 4), crowd=st.integers(2, 4))
    def arrive_together(self, which: int, crowd: int) -> None:
        for _ in range(crowd):
            self.arrive(which)

    @precondition(lambda self: self.world.waiting)
    @rule(which=st.integers(0, 20))
    def give_up(self, which: int) -> None:
        waiting = list(self.world.waiting)
        self.world.depart(waiting[which % len(waiting)])

    @precondition(lambda self: any(each.leases for each in self.world.workers.values()))
    @rule(which=st.integers(0, 20))
    def finish(self, which: int) -> None:
        leases = sorted(ticket for each in self.world.workers.values() for ticket in each.leases)
        self.world.depart(leases[which % len(leases)])

    @precondition(lambda self: self.world.loading())
    @rule(which=st.integers(0, 2))
    def load(self, which: int) -> None:
        loading = self.world.loading()
        self.world.loaded(loading[which % len(loading)])

    @precondition(lambda self: self.world.loading())
    @rule(gone=st.booleans())
    def fail(self, gone: bool) -> None:
        self.world.load_failed(gone=gone)

    @precondition(lambda self: any(each.ready for each in self.world.workers.values()))
    @rule(which=st.integers(0, 2), gone=st.booleans())
    def crash(self, which: int, gone: bool) -> None:
        ready = [number for number, each in self.world.workers.items() if each.ready]
        self.world.crashed(ready[which % len(ready)], gone=gone)

    @precondition(lambda self: self.world.ending())
    @rule(which=st.integers(0, 2))
    def vanish(self, which: int) -> None:
        ending = self.world.ending()
        self.world.gone(ending[which % len(ending)])

    @rule(which=st.integers(0, 4))
    def unload(self, which: int) -> None:
        self.world.unload(self.models[which % len(self.models)])

    @rule(which=st.integers(0, 4))
    def forgive(self, which: int) -> None:
        self.world.forgive(self.models[which % len(self.models)])

    @rule(which=st.none() | st.integers(0, 4))
    def default_is(self, which: int | None) -> None:
        self.world.default_is(None if which is None else self.models[which % len(self.models)])

    @rule(
        which=st.integers(0, 4),
        another_worker=st.booleans(),
        most=st.sampled_from([None, 1, 2]),
        idle=st.sampled_from([None, 0.0, 20.0]),
        max_models=st.integers(1, 3),
    )
    def change_settings(
        self, which: int, another_worker: bool, most: int | None, idle: float | None, max_models: int
    ) -> None:
        place = which % len(self.models)
        old = self.models[place]
        self.changes += another_worker
        key = f"{old.label}{self.changes}" if another_worker else old.key
        new = replace(old, key=key, max_concurrent=most, idle_unload_seconds=idle)
        self.models[place] = new
        self.world.settings_are({old.key: new}, max_models=max_models)

    @rule(seconds=st.sampled_from([0.001, 1.0, 10.0, 30.0, 700.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(seconds=st.sampled_from([1.0, 100.0]))
    def pass_time_without_a_tick(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: self.world.now > 60)
    @rule(grace=st.sampled_from([0.0, 5.0]))
    def shut_down(self, grace: float) -> None:
        self.world.shut_down(grace)

    def teardown(self) -> None:
        """If the world answers, everyone is: no deadlock, no ticket lost."""
        world = getattr(self, "world", None)
        if world is None:
            return
        for _ in range(300):
            if not world.waiting:
                break
            self._answer_everything(world)
        assert not world.waiting, "deadlock"
        assert not set(world.admitted) & set(world.refused)

    @staticmethod
    def _answer_everything(world: World) -> None:
        leases = [ticket for each in world.workers.values() for ticket in each.leases]
        for ticket in leases:
            world.depart(ticket)
        for number in world.ending():
            world.gone(number)
        for number in world.loading():
            if number in world.loading():
                world.loaded(number)
        if world.policy.wake_at is not None and not (world.loading() or world.ending()):
            world.advance(world.policy.wake_at - world.now)


AnyWorld.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyWorld = AnyWorld.TestCase


@dataclass(frozen=True)
class Times:
    """The longest that anything takes, in seconds."""

    load: float
    answer: float
    stop: float


@given(
    models=crowds(kept=False),
    max_models=st.integers(1, 3),
    capacity=st.sampled_from([None, 12, 15]),
    patience=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    drain_max=st.sampled_from([2.0, 600.0]),
    times=st.builds(Times, load=st.floats(0.5, 20), answer=st.floats(0.1, 30), stop=st.floats(0, 5)),
    groups=st.lists(
        st.tuples(st.sampled_from([0.0, 0.0, 0.2, 1.0, 5.0, 30.0]), st.integers(0, 4), st.integers(1, 8)),
        max_size=40,
    ),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_nobody_waits_longer_than_the_bound(
    models, max_models, capacity, patience, drain_max, times, groups, chance
) -> None:
    """The statement in the policy's docstring, word for word."""
    limits = Limits(
        max_models=max_models,
        capacity_bytes=capacity,
        patience=patience,
        drain_max_seconds=drain_max,
        max_wait_seconds=1e6,
    )
    simulation = Simulation(
        Policy(limits),
        load_seconds=lambda: chance.uniform(times.load / 2, times.load),
        answer_seconds=lambda: chance.uniform(0, times.answer),
        stop_seconds=lambda: chance.uniform(0, times.stop),
    )
    at = 0.0
    arrivals = []
    for gap, which, size in groups:
        at += gap
        arrivals += [(at, models[which % len(models)])] * size
    requests = simulation.run(arrivals)

    switch = times.stop + times.load
    drain = min(times.answer, drain_max)
    longest_patience = patience * max([switch, *(each.first_guess_seconds for each in models)])
    crowded = any(each.max_concurrent is not None for each in models)
    for each in requests:
        k = each.switches_ahead
        assert each.admitted_at < math.inf
        if k == 0:  # its model was being served, or loaded
            assert crowded or each.admitted_at <= each.arrived_at + switch + 1e-6
            continue
        bound = (
            k * (longest_patience + drain + switch) if crowded else longest_patience + k * (drain + switch)
        )
        assert each.turn_at - each.arrived_at <= bound + 1e-6
        if not crowded:
            assert each.admitted_at == each.turn_at
