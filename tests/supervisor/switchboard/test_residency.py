"""Which models are loaded together, which are kept, and what happens when nobody asks."""

from __future__ import annotations

import pytest

from tests.supervisor.switchboard.world import World, model

A, B, C, D = (model(name) for name in "abcd")


class TestSeveralModels:
    """More places than one, or memory that is known."""

    def test_two_serve_side_by_side(self):
        """An embedding model and a chat model, without a switch."""
        world = World(max_models=2)
        world.serve(A)
        world.serve(B)
        for _ in range(5):
            world.depart(world.arrive(A))
            world.depart(world.arrive(B))
        assert world.starts == ["a", "b"]

    def test_two_loads_at_the_same_time(self):
        """Nobody waits for a place that is free."""
        world = World(max_models=2)
        world.arrive(A)
        world.arrive(B)
        assert world.loading() == [1, 2]

    def test_the_least_recently_used_makes_place(self):
        """Used, not loaded."""
        world = World(max_models=2)
        world.serve(A)
        world.advance(1)
        world.serve(B)
        world.advance(1)
        world.depart(world.arrive(A))
        world.arrive(C)
        assert world.labels() == {"a"}

    def test_an_idle_one_makes_place_though_another_is_busy(self):
        """llama.cpp#28443: one model idle while the other never loads."""
        world = World(max_models=2)
        world.serve(A)
        world.serve(B)
        world.arrive(A)
        world.arrive(C)
        assert world.labels() == {"a"}

    def test_the_one_that_has_served_longest_drains(self):
        """If both are busy."""
        world = World(max_models=2)
        world.serve(A)
        world.advance(1)
        world.serve(B)
        running = [world.arrive(A), world.arrive(B)]
        world.arrive(C)
        world.advance(10)
        for ticket in running:
            world.depart(ticket)
        assert world.labels() == {"b"}

    def test_memory_limits_as_well(self):
        """8 and 2 fit into 10, 3 more do not."""
        large, small, more = (
            model("large", need_bytes=8),
            model("small", need_bytes=2),
            model("more", need_bytes=3),
        )
        world = World(max_models=9, capacity_bytes=10)
        world.serve(large)
        world.serve(small)
        assert world.labels() == {"large", "small"}
        world.arrive(more)
        world.gone()
        assert world.labels() == {"small", "more"}

    def test_nobody_goes_whose_going_does_not_help(self):
        """The idle small one stays: what is needed is the large one's place."""
        large, small, other = (
            model("large", need_bytes=8),
            model("small", need_bytes=2),
            model("other", need_bytes=8),
        )
        world = World(max_models=9, capacity_bytes=10)
        world.serve(small)
        world.serve(large)
        running = world.arrive(large)
        world.arrive(other)
        assert world.ending() == []
        world.advance(10)
        world.depart(running)
        assert world.labels() == {"small"}

    def test_one_larger_than_the_memory_is_loaded_alone(self):
        """Whether it fits at all is checked elsewhere, against what the device really has."""
        world = World(max_models=2, capacity_bytes=10)
        world.serve(A)
        huge = world.arrive(model("huge", need_bytes=11))
        world.gone()
        world.loaded()
        assert huge in world.admitted

    def test_nobody_behind_the_head_takes_the_place_it_waits_for(self):
        """The small one would fit at once; but then the large one might wait for ever."""
        mid, large, small = (
            model("mid", need_bytes=6),
            model("large", need_bytes=8),
            model("small", need_bytes=3),
        )
        world = World(max_models=9, capacity_bytes=10)
        world.serve(mid)
        running = world.arrive(mid)
        world.arrive(large)
        world.arrive(small)
        assert world.labels() == {"mid"}
        world.advance(10)
        world.depart(running)
        world.gone()
        assert world.labels() == {"large"}


class TestKept:
    """Models that others do not displace."""

    kept = model("kept", kept=True)

    def test_it_stays_though_it_is_idle_and_the_other_busy(self):
        """The other drains."""
        world = World(max_models=2)
        world.serve(self.kept)
        world.serve(A)
        running = world.arrive(A)
        world.arrive(B)
        assert world.labels() == {"kept", "a"}
        world.advance(10)
        world.depart(running)
        assert world.labels() == {"kept"}

    def test_it_stays_while_the_other_loads(self):
        """The place will be free in time."""
        world = World(max_models=2)
        world.serve(self.kept)
        world.arrive(A)
        world.arrive(B)
        world.advance(100)
        assert world.labels() == {"kept", "a"}

    def test_it_makes_place_if_nothing_else_can(self):
        """All places kept: better a switch than a deadlock."""
        world = World()
        world.serve(self.kept)
        ticket = world.arrive(A)
        world.gone()
        world.loaded()
        assert ticket in world.admitted

    def test_it_is_not_unloaded_when_idle(self):
        """Kept is kept."""
        world = World(max_models=2, idle_unload_seconds=5)
        world.serve(self.kept)
        world.serve(A)
        world.advance(6)
        assert world.labels() == {"kept"}

    def test_the_default_model_does_not_displace_it(self):
        """Nobody waits for the default."""
        world = World(default_model=A)
        world.serve(self.kept)
        world.advance(100)
        assert world.labels() == {"kept"}


class TestIdle:
    """Nobody asks for anything."""

    def test_by_default_the_last_model_stays(self):
        """And nothing is due."""
        world = World()
        world.serve(A)
        assert world.policy.wake_at is None

    def test_an_idle_worker_is_unloaded_after_a_while(self):
        """Counted from its last request's end."""
        world = World(idle_unload_seconds=60)
        world.serve(A)
        world.advance(30)
        running = world.arrive(A)
        world.advance(100)
        world.depart(running)
        world.advance(59)
        assert world.ending() == []
        world.advance(1)
        assert world.ending() == [1]

    def test_a_request_at_the_moment_of_the_unload_is_served(self):
        """Either by the worker, or by a fresh one (llama-swap#946: it wedged the server for good)."""
        world = World(idle_unload_seconds=60)
        world.serve(A)
        world.now += 60
        assert world.arrive(A) in world.admitted
        world.depart(1)
        world.depart(2)
        world.advance(60)
        ticket = world.arrive(A)
        world.gone()
        world.loaded()
        assert ticket in world.admitted

    def test_one_models_crowd_does_not_keep_another_loaded(self):
        """Each is idle for itself."""
        single = model("a", max_concurrent=1)
        world = World(max_models=2, idle_unload_seconds=60)
        world.serve(single)
        world.serve(B)
        world.arrive(single)
        world.arrive(single)
        world.advance(60)
        assert world.labels() == {"a"}

    def test_the_default_model_is_returned_to(self):
        """After a while without a request for another (peers: llama-swap#413)."""
        world = World(default_model=A, default_model_after_seconds=60)
        world.serve(B)
        world.advance(59)
        assert world.labels() == {"b"}
        world.advance(1)
        world.gone()
        assert world.labels() == {"a"}

    def test_it_takes_a_free_place_at_once_and_stays_when_idle(self):
        """At the start, too."""
        world = World(max_models=2, default_model=A, default_model_after_seconds=60, idle_unload_seconds=5)
        world.tick()
        world.loaded()
        world.advance(100)
        assert world.labels() == {"a"}

    def test_it_does_not_wait_for_a_model_that_is_not_in_its_way(self):
        """b is busy all the time; c's place is the one."""
        world = World(max_models=2, default_model=A, default_model_after_seconds=60)
        world.serve(B)
        world.loaded(world.running(A))
        world.arrive(B)
        other = world.arrive(C)
        world.gone()
        world.loaded()
        world.depart(other)
        world.advance(60)
        world.gone()
        assert world.labels() == {"a", "b"}

    def test_its_load_is_given_up_for_a_request(self):
        """Nobody waits for it."""
        world = World(default_model=A)
        world.tick()
        world.arrive(B)
        world.gone()
        assert world.labels() == {"b"}

    def test_it_is_tried_again_after_its_cooldown(self):
        """Without anyone's asking."""
        world = World(default_model=A)
        world.tick()
        world.load_failed()
        assert world.loading() == []
        world.advance(10)
        assert world.labels() == {"a"}

    def test_unloaded_by_order_any_request_brings_it_back(self):
        """Also one for a model that serves already, about which nothing else is to be decided."""
        world = World(max_models=2, default_model=A, default_model_after_seconds=0)
        world.serve(A)
        world.serve(B)
        world.unload(A)
        world.gone()
        assert world.labels() == {"b"}
        world.arrive(B)
        assert world.labels() == {"a", "b"}

    def test_unloaded_by_order_it_stays_away_until_the_next_request(self):
        """Somebody needs the memory."""
        world = World(default_model=A)
        world.serve(A)
        world.unload(A)
        world.gone()
        world.advance(1000)
        assert world.workers == {}
        world.serve(B)
        world.advance(0)
        world.gone()
        assert world.labels() == {"a"}

    def test_it_is_found_later(self):
        """Its folder came after the server did."""
        world = World(default_model_after_seconds=60)
        world.advance(1000)
        world.default_is(A)
        assert world.labels() == {"a"}

    def test_its_folder_changed(self):
        """The old version is another model: it serves who asks for it, and makes way once it is idle."""
        new = model("a@2", label="a")
        world = World(default_model=A, default_model_after_seconds=60)
        world.serve(A)
        world.default_is(new)
        world.advance(59)
        assert world.starts == ["a"]
        world.advance(1)
        world.gone()
        world.loaded(world.running(new))
        world.advance(1000)
        assert world.starts == ["a", "a"]

    def test_its_folder_is_gone(self):
        """It is not started any more; what runs of it stays until something else is wanted."""
        world = World(default_model=A)
        world.serve(A)
        world.default_is(None)
        ticket = world.arrive(B)
        world.gone()
        world.loaded()
        world.depart(ticket)
        world.advance(1000)
        assert world.labels() == {"b"}

    @pytest.mark.parametrize("leaver_first", [True, False])
    def test_it_waits_while_anybody_waits(self, leaver_first):
        """A request's need goes first, whoever leaves."""
        world = World(default_model=A)
        world.tick()
        world.loaded()
        tickets = [world.arrive(B), world.arrive(B)]
        world.depart(tickets[0 if leaver_first else 1])
        world.gone()
        assert world.labels() == {"b"}
