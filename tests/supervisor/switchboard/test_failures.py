"""Loads that are given up or fail, and workers that crash."""

from __future__ import annotations

import pytest

from local_llm.switchboard.events import Stop
from tests.supervisor.switchboard.world import World, model

A, B = (model(name) for name in "ab")


class TestLoads:
    """Loads are shared, given up late, and their failures told."""

    def test_a_load_never_belongs_to_one_client(self):
        """The one who asked has left; who comes next finds it under way."""
        world = World()
        world.depart(world.arrive(A))
        assert world.loading() == [1]
        ticket = world.arrive(A)
        world.loaded()
        assert world.admitted[ticket] == 1

    def test_a_load_nobody_waits_for_is_given_up_for_another_model(self):
        """Only then (peers: llama-swap#727)."""
        world = World()
        world.depart(world.arrive(A))
        world.arrive(B)
        assert world.effects == [Stop(1, "nobody waits for it any more, and 'b' is waited for")]
        world.gone()
        assert world.starts == ["a", "b"]

    def test_a_load_that_is_waited_for_is_not_given_up(self):
        """However long the other waits: it will have its turn."""
        world = World()
        world.arrive(A)
        world.arrive(B)
        world.advance(500)
        assert world.loading() == [1]

    def test_a_failed_load_is_told_to_all_who_wait_and_to_nobody_else(self):
        """With the worker's own reason; the next model is loaded."""
        world = World()
        first, second, other = world.arrive(A), world.arrive(A), world.arrive(B)
        world.load_failed()
        assert set(world.refused) == {first, second}
        assert "out of memory" in world.refused[first].message
        world.loaded()
        assert other in world.admitted

    def test_what_served_before_a_failed_load_is_loaded_again_when_asked_for(self):
        """A failed load never leaves the server without a usable model."""
        world = World()
        world.serve(A)
        world.arrive(B)
        world.gone()
        world.load_failed()
        again = world.arrive(A)
        world.loaded()
        assert again in world.admitted

    def test_a_load_that_succeeds_just_after_it_was_given_up_is_none(self):
        """Its readiness and the order to stop crossed."""
        world = World()
        world.depart(world.arrive(A))
        world.arrive(B)
        world.loaded(1)
        assert world.effects == []
        assert world.arrive(A) in world.waiting

    def test_costs_are_counted_from_the_order_to_stop(self):
        """A switch is the old one's end and the new one's start."""
        world = World()
        world.serve(A)
        world.arrive(B)
        world.advance(3)
        world.gone()
        world.advance(4)
        world.loaded()
        assert world.policy.costs.of(B) == 7.0

    def test_costs_are_a_running_average(self):
        """One odd measurement does not change much."""
        world = World()
        costs = world.policy.costs
        costs.measured(A, 10.0)
        costs.measured(A, 20.0)
        assert costs.of(A) == pytest.approx(13.0)
        assert costs.of(model("a@2", label="a")) == costs.of(A)


class TestFailures:
    """Cooldown: no crash and no load is retried in a loop."""

    def fail(self, world: World) -> float:
        """One more failed load; the seconds until the next try."""
        world.arrive(A)
        world.load_failed()
        return world.refused[world.arrive(A)].retry_after_seconds

    def test_the_cooldown_doubles_up_to_five_minutes(self):
        """10 s, 20, 40 ...; for months if need be."""
        world = World()
        pauses = []
        for _ in range(8):
            pauses.append(self.fail(world))
            world.advance(pauses[-1])
        assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
        for _ in range(2000):
            self.fail(world)
            world.advance(300)

    def test_a_cooling_model_is_refused_at_once_with_the_reason_and_when_to_retry(self):
        """Status 503, Retry-After, and the worker's own words."""
        world = World()
        self.fail(world)
        world.advance(4)
        error = world.refused[world.arrive(A)]
        assert error.status == 503
        assert error.retry_after_seconds == pytest.approx(6)
        assert "out of memory" in error.message

    def test_others_are_served_meanwhile(self):
        """A broken model is nobody else's trouble."""
        world = World()
        self.fail(world)
        ticket = world.arrive(B)
        world.loaded()
        assert ticket in world.admitted

    def test_forgiving_ends_the_cooldown(self):
        """`/admin/load`, say."""
        world = World()
        self.fail(world)
        world.forgive(A)
        world.arrive(A)
        assert world.loading()

    def test_a_changed_folder_starts_with_a_clean_slate(self):
        """It is another model with the same name."""
        world = World()
        self.fail(world)
        world.arrive(model("a@2", label="a"))
        assert world.loading()

    @pytest.mark.parametrize("pause", [70.0, 5000.0])
    def test_failures_long_past_do_not_count(self, pause):
        """Neither after a minute of service nor after an hour without a try."""
        world = World()
        self.fail(world)
        world.advance(10)
        self.fail(world)
        world.advance(20)
        if pause < 100:
            world.serve(A)
        world.advance(pause)
        if pause < 100:
            world.unload(A)
            world.gone()
        assert self.fail(world) == 10

    def test_after_a_crash_those_who_wait_are_tried_once_on_a_fresh_worker(self):
        """After the second in a row they are told."""
        single = model("a", max_concurrent=1)
        world = World()
        world.arrive(single)
        second, third = world.arrive(single), world.arrive(single)
        world.crashed(world.loaded())
        assert world.loading()
        world.crashed(world.loaded())
        assert second in world.admitted
        assert "killed" in world.refused[third].message
        assert not world.loading()
        assert world.refused[world.arrive(single)].retry_after_seconds == 10

    def test_a_crash_now_and_then_is_no_crash_loop(self):
        """Each time it had served for more than a minute."""
        world = World()
        for _ in range(5):
            number = world.serve(A)
            world.advance(61)
            world.crashed(number)
        assert world.refused == {}

    def test_a_crash_while_draining_makes_place(self):
        """The leases are over; their ends come later and change nothing."""
        world = World()
        number = world.serve(A)
        running = world.arrive(A)
        world.arrive(B)
        world.advance(10)
        world.crashed(number, gone=False)
        world.depart(running)
        world.gone()
        assert world.labels() == {"b"}

    def test_a_crashed_models_waiters_queue_up_behind_the_others(self):
        """Its turn was the one that crashed."""
        single = model("a", max_concurrent=1)
        world = World()
        world.arrive(single)
        world.arrive(single)
        number = world.loaded()
        world.arrive(B)
        world.advance(1)
        world.crashed(number)
        assert world.labels() == {"b"}
