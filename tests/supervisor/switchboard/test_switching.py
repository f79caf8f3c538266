"""Who is served when: stories told to the policy, without a clock."""

from __future__ import annotations

import pytest

from local_llm.errors import UpstreamDied
from local_llm.switchboard.events import Admit, Cut, Start, Stop
from tests.supervisor.switchboard.world import World, model

A, B, C = (model(name) for name in "abc")


class TestSwitching:
    """One place, several models."""

    def test_the_first_request_starts_its_model(self):
        """It waits for the load, and is admitted the moment the worker is ready."""
        world = World()
        ticket = world.arrive(A)
        assert world.effects == [Start(1, A)]
        world.loaded()
        assert world.effects == [Admit(ticket, 1)]

    def test_an_idle_model_makes_place_at_once(self):
        """Patience is for busy models; and the next starts only when nothing of the last is left."""
        world = World()
        world.serve(A)
        world.arrive(B)
        assert world.effects == [Stop(1, "'b' is waited for")]
        world.gone()
        assert world.effects == [Start(2, B)]

    def test_a_busy_model_admits_newcomers_until_the_others_line_is_due(self):
        """The cost of a switch to b is guessed as 10 s, so a is closed 10 s after b's first request."""
        world = World()
        a = world.serve(A)
        world.arrive(A)
        late = world.arrive(B)
        world.advance(9.9)
        assert world.arrive(A) in world.admitted
        world.advance(0.2)
        waits = world.arrive(A)
        assert waits in world.waiting
        for ticket in list(world.workers[a].leases):
            world.depart(ticket)
        assert world.effects == [Stop(a, "'b' is waited for")]
        world.gone()
        world.loaded()
        assert late in world.admitted

    def test_a_newcomer_does_not_slip_in_before_a_late_tick(self):
        """What was due by the time of its arrival is settled first."""
        world = World()
        world.serve(A)
        world.arrive(A)
        world.arrive(B)
        world.now += 11
        assert world.arrive(A) in world.waiting

    def test_a_busy_model_cannot_starve_another(self):
        """llama-swap serves a ready model first, for ever; here its crowd is closed out (peers: trace)."""
        world = World(drain_max_seconds=5)
        world.serve(A)
        wanted = world.arrive(B)
        for _ in range(40):
            world.arrive(A)
            world.advance(0.5)
            if world.ending():
                world.gone()
                world.loaded()
        assert wanted in world.admitted

    def test_clients_that_give_up_early_do_not_keep_their_line_young(self):
        """With a client timeout of 6 s and patience of 10, no single ticket would ever be due."""
        world = World()
        a = world.serve(A)
        busy = world.arrive(A)
        first = world.arrive(B)
        world.advance(6)
        world.arrive(B)
        world.depart(first)
        world.advance(4)
        assert world.arrive(A) in world.waiting
        world.depart(busy)
        assert world.ending() == [a]

    def test_a_model_that_loads_very_slowly_has_its_turn_too(self):
        """Patience of 2,000 s would be longer than anyone may wait: it ends at half of that."""
        world = World(max_wait_seconds=600)
        world.serve(A)
        world.arrive(A)
        world.arrive(model("huge", first_guess_seconds=2000.0))
        world.advance(301)
        assert world.arrive(A) in world.waiting

    def test_a_just_loaded_model_admits_those_who_waited_before_it_goes(self):
        """llama.cpp#28698: evicted before its own request was sent to it."""
        world = World()
        a = world.arrive(A)
        world.arrive(B)
        world.advance(60)
        number = world.loaded()
        assert world.effects == [Admit(a, number)]
        assert world.arrive(A) in world.waiting, "b was due long ago, so a is closed again"

    def test_a_worker_on_its_way_out_is_not_revived(self):
        """ollama#17408: the victim revived by the fast path hung for hours."""
        world = World()
        world.serve(A)
        world.arrive(B)
        again = world.arrive(A)
        world.gone()
        world.loaded(world.running(B))
        world.advance(11)
        for ticket in list(world.admitted):
            world.depart(ticket)
        world.gone()
        number = world.loaded()
        assert world.admitted[again] == number

    def test_an_alternating_crowd_costs_one_switch(self):
        """A hundred at once, a b a b ...: all of a, then all of b (peers: llama-swap#612)."""
        world = World()
        tickets = [world.arrive(each) for _ in range(50) for each in (A, B)]
        world.advance(10)
        number = world.loaded()
        assert len(world.workers[number].leases) == 50
        for ticket in tickets[::2]:
            world.depart(ticket)
        world.gone()
        world.loaded()
        assert set(world.admitted) == set(tickets)
        assert world.starts == ["a", "b"]

    def test_those_a_turn_left_behind_queue_up_behind_the_others(self):
        """a's newcomers during its drain come after b and c, however old."""
        world = World(drain_max_seconds=0)
        world.serve(A)
        world.arrive(A)
        world.arrive(B)
        world.advance(5)
        world.arrive(C)
        world.advance(5)
        world.arrive(A)
        for _ in range(3):
            world.gone()
            world.advance(10)
            world.loaded()
        assert world.starts == ["a", "b", "c", "a"]

    def test_two_crowds_larger_than_their_workers_do_not_switch_once_a_request(self):
        """A worker with an overflow of its own stays as long as the other's patience (llama-swap#612)."""
        one_by_one = [model(name, max_concurrent=1) for name in "ab"]
        world = World()
        for _ in range(30):
            for each in one_by_one:
                world.arrive(each)
        while world.waiting:
            for number in world.loading():
                world.advance(10)
                world.loaded(number)
            world.advance(1)
            for ticket in [each for worker in world.workers.values() for each in worker.leases]:
                world.depart(ticket)
            for number in world.ending():
                world.gone(number)
        assert len(world.admitted) == 60
        assert world.starts == ["a", "b", "a", "b", "a", "b"]

    def test_a_crowd_that_does_not_fit_queues_up_again_behind_those_who_came_later(self):
        """Its turn is over for all of it, even before one who comes at the very moment it ends."""
        single = model("a", max_concurrent=1)
        world = World(drain_max_seconds=30)
        world.serve(single)
        running, left_behind = world.arrive(single), world.arrive(single)
        world.advance(1)
        world.arrive(B)
        world.advance(10)
        world.arrive(C)
        world.depart(running)
        for _ in range(3):
            world.gone()
            world.advance(10)
            world.loaded()
            for ticket in set(world.admitted) - {left_behind}:
                world.depart(ticket)
        assert world.starts == ["a", "b", "c", "a"]

    def test_a_worker_takes_no_more_than_it_can(self):
        """The rest waits, oldest first, and is admitted as places become free."""
        pair = model("a", max_concurrent=2)
        world = World()
        first, second, third, fourth = (world.arrive(pair) for _ in range(4))
        world.loaded()
        assert set(world.admitted) == {first, second}
        world.depart(second)
        assert set(world.admitted) == {first, second, third}
        assert set(world.waiting) == {fourth}


class TestDrains:
    """Closing a worker that still answers."""

    @pytest.fixture
    def world(self):
        """a answers one request and drains for b."""
        world = World(drain_max_seconds=60)
        world.serve(A)
        world.arrive(A)
        world.arrive(B)
        world.advance(10)
        return world

    def test_what_still_runs_at_the_deadline_is_cut(self, world):
        """With an error that says why; the worker is stopped right after."""
        (running,) = world.workers[1].leases
        world.advance(59.9)
        assert running in world.workers[1].leases
        world.advance(0.2)
        cut, stop = world.effects
        assert isinstance(cut, Cut)
        assert cut.tickets == (running,)
        assert isinstance(cut.error, UpstreamDied)
        assert "'b' is waited for" in cut.error.message
        assert isinstance(stop, Stop)
        world.depart(running)
        assert world.effects == []

    def test_it_is_called_off_when_those_it_was_for_have_left(self, world):
        """And who came meanwhile is admitted."""
        newcomer = world.arrive(A)
        (rival,) = (ticket for ticket, wanted in world.waiting.items() if wanted is B)
        world.depart(rival)
        assert world.effects == [Admit(newcomer, 1)]
        world.advance(100)
        assert world.cut == set()

    def test_one_who_leaves_does_not_call_it_off_for_the_others(self, world):
        """b's line goes on."""
        world.arrive(B)
        world.depart(next(ticket for ticket, wanted in world.waiting.items() if wanted is B))
        assert world.arrive(A) in world.waiting

    def test_one_whose_line_is_not_due_does_not_keep_it_going(self, world):
        """c came a moment ago: it waits like anybody else."""
        (rival,) = (ticket for ticket, wanted in world.waiting.items() if wanted is B)
        world.arrive(C)
        world.depart(rival)
        assert world.arrive(A) in world.admitted
        world.advance(10)
        assert world.arrive(A) in world.waiting

    def test_an_idle_worker_ends_it(self):
        """With two places, b takes the one that became idle, and a goes on."""
        world = World(max_models=2)
        world.serve(A)
        c = world.serve(C)
        world.arrive(A)
        other = world.arrive(C)
        world.arrive(B)
        world.advance(10)
        assert world.arrive(A) in world.waiting
        world.depart(other)
        assert world.ending() == [c]
        assert world.arrive(A) in world.admitted
