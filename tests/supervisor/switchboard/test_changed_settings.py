"""Settings that change while models serve, load and are waited for."""

from __future__ import annotations

from tests.supervisor.switchboard.world import World, model

A, B = model("a"), model("b")
A2 = model("a", key="a2")
"""The same with other arguments."""


def test_an_idle_worker_goes_and_the_next_request_starts_the_new_one() -> None:
    """Not before: nobody may ask for it."""
    world = World()
    world.serve(A)
    world.settings_are({"a": A2})
    assert world.labels() == set()
    world.gone()
    assert world.starts == ["a"]
    world.arrive(A2)
    assert world.starts == ["a", "a"]
    assert world.running(A2) == 2


def test_a_busy_worker_finishes_what_it_has() -> None:
    """And takes nothing more."""
    world = World()
    world.serve(A)
    running = world.arrive(A)
    world.settings_are({"a": A2})
    waiting = world.arrive(A2)
    assert world.labels() == {"a"}
    assert waiting not in world.admitted
    world.depart(running)
    world.gone()
    world.loaded()
    assert world.admitted[waiting] == 2


def test_the_others_are_not_disturbed() -> None:
    """However many there are, and with room for the old and the new beside them."""
    world = World(max_models=3)
    kept = world.serve(B)
    world.serve(A)
    world.settings_are({"a": A2, "b": B})
    world.gone()
    ticket = world.arrive(B)
    assert world.admitted[ticket] == kept
    assert world.starts == ["b", "a"]


def test_who_waits_waits_for_the_new_one() -> None:
    """A load with the old arguments is given up, also where it would never have succeeded."""
    world = World()
    first, second = world.arrive(A), world.arrive(A)
    world.settings_are({"a": A2})
    assert world.labels() == set()
    world.gone()
    assert world.starts == ["a", "a"]
    number = world.loaded()
    assert [world.admitted[each] for each in (first, second)] == [number, number]


def test_who_waits_keeps_the_place_in_the_queue() -> None:
    """A line's age is that of its oldest ticket, whatever its model is called."""
    world = World()
    world.serve(model("c"))
    busy = world.arrive(model("c"))
    world.arrive(A)
    world.advance(5)
    world.arrive(B)
    world.settings_are({"a": A2})
    world.depart(busy)
    world.gone()
    assert world.starts == ["c", "a"]


def test_two_lines_that_become_one() -> None:
    """A change that is taken back while the first worker still drains: oldest first."""
    world = World(max_waiting=8)
    world.serve(B)
    busy = world.arrive(B)
    first = world.arrive(A)
    world.advance(1)
    second = world.arrive(A2)
    world.advance(1)
    third = world.arrive(A)
    world.settings_are({"a": A2})
    assert list(world.policy.lines["a2"].tickets) == [first, second, third]
    world.depart(busy)
    world.gone()
    world.loaded()
    assert {first, second, third} <= set(world.admitted)


def test_what_is_no_matter_of_the_worker_holds_at_once() -> None:
    """Kept, and how long it may be idle, without a new worker."""
    world = World(max_models=2)
    number = world.serve(A)
    world.settings_are({"a": model("a", idle_unload_seconds=30.0)})
    world.advance(29)
    assert world.labels() == {"a"}
    ticket = world.arrive(model("a", idle_unload_seconds=30.0))
    assert world.admitted[ticket] == number
    world.depart(ticket)
    world.advance(31)
    assert world.labels() == set()


def test_new_limits_hold_at_once() -> None:
    """A second place is taken by who waits for it."""
    world = World(max_models=1)
    world.serve(A)
    world.arrive(A)
    world.arrive(B)
    assert world.starts == ["a"]
    world.settings_are({}, max_models=2)
    assert world.starts == ["a", "b"]


def test_the_default_model_is_returned_to_as_it_is_set_now() -> None:
    """It does not rest because its settings changed."""
    world = World(default_model_after_seconds=0.0)
    world.default_is(A)
    world.loaded()
    world.settings_are({"a": A2})
    world.gone()
    assert world.starts == ["a", "a"]
    assert world.running(A2) == 2


class TestIdleOfOneModel:
    """`idle_unload_seconds` of a model's own."""

    def test_in_place_of_the_common_one(self) -> None:
        """Longer here."""
        world = World(max_models=2, idle_unload_seconds=10)
        world.serve(model("a", idle_unload_seconds=100.0))
        world.serve(B)
        world.advance(50)
        assert world.labels() == {"a"}
        world.advance(60)
        assert world.labels() == set()

    def test_without_a_common_one(self) -> None:
        """Also after a request that changed nothing else."""
        world = World()
        patient = model("a", idle_unload_seconds=10.0)
        world.serve(patient)
        world.advance(8)
        world.depart(world.arrive(patient))
        world.advance(8)
        assert world.labels() == {"a"}
        world.advance(3)
        assert world.labels() == set()

    def test_never(self) -> None:
        """Zero."""
        world = World(idle_unload_seconds=10)
        world.serve(model("a", idle_unload_seconds=0.0))
        world.advance(1000)
        assert world.labels() == {"a"}


def test_a_change_that_is_undone_gives_the_worker_back() -> None:
    """It has the right arguments; nobody need wait until its long answer is over."""
    world = World()
    number = world.serve(A)
    world.arrive(A)
    world.settings_are({"a": A2})
    waiting = world.arrive(A2)
    world.settings_are({"a": A, "a2": A})
    assert world.admitted[waiting] == number
    assert world.admitted[world.arrive(A)] == number
    assert world.starts == ["a"]


def test_an_unload_meanwhile_is_not_undone_with_it() -> None:
    """Somebody asked for that."""
    world = World()
    world.serve(A)
    running = world.arrive(A)
    world.settings_are({"a": A2})
    world.unload(A)
    world.settings_are({"a": A})
    world.depart(running)
    assert world.labels() == set()
