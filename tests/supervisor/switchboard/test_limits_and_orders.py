"""Requests beyond the limits, and workers that go by order."""

from __future__ import annotations

from local_llm.errors import Overloaded, ShuttingDown, WaitedTooLong
from tests.supervisor.switchboard.world import World, model

A, B, C, D = (model(name) for name in "abcd")


class TestQueueLimits:
    """The same for everyone."""

    def test_a_models_line_has_a_limit(self):
        """429, with a Retry-After from the measured costs."""
        world = World(max_waiting=2)
        world.arrive(A)
        world.arrive(A)
        error = world.refused[world.arrive(A)]
        assert isinstance(error, Overloaded)
        assert error.retry_after_seconds == 10
        assert world.arrive(B) in world.waiting
        assert world.refused[world.arrive(A)].retry_after_seconds == 20

    def test_all_lines_together_have_one(self):
        """It counts those who wait, not those who are served."""
        world = World(max_waiting_total=2)
        world.serve(A)
        assert world.arrive(A) in world.admitted
        world.arrive(B)
        world.arrive(C)
        assert world.arrive(D) in world.refused
        assert world.arrive(A) in world.admitted

    def test_one_who_waited_too_long_is_given_up(self):
        """503, and only that one."""
        world = World(max_wait_seconds=30)
        world.arrive(A)
        old = world.arrive(B)
        world.advance(20)
        young = world.arrive(B)
        world.advance(10)
        assert isinstance(world.refused[old], WaitedTooLong)
        assert set(world.waiting) == {young}

    def test_one_who_left_is_not_answered_even_if_its_time_was_over(self):
        """Its departure and the tick crossed."""
        world = World(max_wait_seconds=30)
        ticket = world.arrive(A)
        world.now += 40
        world.depart(ticket)
        assert world.effects == []


class TestShutdownAndUnload:
    """Workers that have to go by order."""

    def test_waiters_are_refused_loads_stopped_and_leases_have_the_grace(self):
        """Then the rest is cut."""
        world = World(max_models=2)
        a = world.serve(A)
        running = world.arrive(A)
        waiting = world.arrive(B)
        world.shut_down(grace_seconds=30)
        assert isinstance(world.refused[waiting], ShuttingDown)
        assert world.ending() == [2]
        assert isinstance(world.refused[world.arrive(A)], ShuttingDown)
        world.advance(30)
        assert world.cut == {running}
        assert world.ending() == [a, 2]

    def test_a_second_order_shortens_the_grace(self):
        """The second Ctrl-C; a longer one does not lengthen it again."""
        world = World()
        world.serve(A)
        running = world.arrive(A)
        world.shut_down(grace_seconds=30)
        world.shut_down(grace_seconds=600)
        world.shut_down(grace_seconds=0)
        assert world.cut == {running}
        assert isinstance(world.effects[0].error, ShuttingDown)

    def test_a_load_that_ends_during_shutdown_changes_nothing(self):
        """Whichever way it ends."""
        world = World(max_models=2, default_model=D)
        world.arrive(A)
        world.arrive(B)
        world.shut_down()
        world.loaded(1)
        world.load_failed(2)
        world.gone(1)
        assert world.workers == {}
        assert world.policy.wake_at is None

    def test_unload_waits_for_the_leases(self):
        """Newcomers get a fresh worker, when the old one is gone."""
        world = World()
        number = world.serve(A)
        running = world.arrive(A)
        world.unload(A)
        newcomer = world.arrive(A)
        world.depart(running)
        assert world.ending() == [number]
        world.gone()
        world.loaded()
        assert newcomer in world.admitted

    def test_unloading_again_does_not_lengthen_the_drain(self):
        """The first deadline holds."""
        world = World(drain_max_seconds=60)
        world.serve(A)
        running = world.arrive(A)
        world.unload(A)
        world.advance(40)
        world.unload(A)
        world.advance(20)
        assert world.cut == {running}

    def test_unload_ends_a_load_only_if_nobody_waits_for_it(self):
        """Who waits has asked for it, too."""
        world = World()
        ticket = world.arrive(A)
        world.unload(A)
        assert world.ending() == []
        world.depart(ticket)
        world.unload(A)
        assert world.ending() == [1]
