"""The switchboard: leases granted, cut and given back; workers started, stopped and buried."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed, Overloaded, PortTaken, ServiceError, ShuttingDown, UpstreamDied
from local_llm.switchboard.events import Model
from local_llm.switchboard.policy import Limits
from local_llm.switchboard.switchboard import Switchboard


def card(name: str) -> ModelCard:
    return ModelCard(name, Path("/m") / name, Kind.CHAT, Engine.VLLM, evidence=())


@dataclass
class Outcome:
    """How a scripted worker ended."""

    def in_words(self) -> str:
        return "was killed by SIGKILL"


@dataclass
class Scripted:
    """A worker whose life the test writes."""

    card: ModelCard
    worker_id: str
    base_url: str = "http://127.0.0.1:1"
    key: str = "k"
    may_be_ready: anyio.Event = field(default_factory=anyio.Event)
    dies: anyio.Event = field(default_factory=anyio.Event)
    may_be_gone: anyio.Event = field(default_factory=anyio.Event)
    stopping: anyio.Event = field(default_factory=anyio.Event)
    failure: ServiceError | None = None
    stops: list[str] = field(default_factory=list)
    memory_is_back: anyio.Event | None = None

    async def start(self) -> None:
        await self.may_be_ready.wait()
        if self.failure is not None:
            raise self.failure

    async def wait_ended(self) -> Outcome:
        await self.dies.wait()
        return Outcome()

    async def stop(self, *, reason: str) -> None:
        self.stops.append(reason)
        self.stopping.set()
        await self.may_be_gone.wait()

    async def memory_back(self, wanted_bytes: Callable[[], int | None]) -> None:
        if self.memory_is_back is not None:
            await self.memory_is_back.wait()

    def last_lines(self, count: int = 20) -> list[str]:
        return ["segmentation fault"][:count]


class Stage:
    """A switchboard with scripted workers."""

    def __init__(self, *, obedient: bool = True, **limits: float) -> None:
        self.obedient = obedient
        self.workers: list[Scripted] = []
        self._news = anyio.Event()
        self.switchboard = Switchboard(
            limits=Limits(**limits),  # type: ignore[arg-type]
            launch=self._launch,
            describe=lambda each: Model(each.id, each.id, first_guess_seconds=0.0),
        )

    def _launch(self, each: ModelCard) -> Scripted:
        if each.id == "unlaunchable":
            raise OSError(28, "No space left on device")
        worker = Scripted(each, f"w{len(self.workers) + 1}")
        if self.obedient:
            worker.may_be_ready.set()
            worker.may_be_gone.set()
        self.workers.append(worker)
        self._news.set()
        return worker

    async def worker(self, number: int) -> Scripted:
        """The worker that was launched as the `number`th; waits for it."""
        while len(self.workers) < number:
            self._news = anyio.Event()
            await self._news.wait()
        return self.workers[number - 1]


@asynccontextmanager
async def stage(*, obedient: bool = True, **limits: float) -> AsyncIterator[Stage]:
    with anyio.fail_after(10):
        made = Stage(obedient=obedient, **limits)
        try:
            async with made.switchboard:
                try:
                    yield made
                finally:
                    for worker in made.workers:
                        worker.may_be_gone.set()
        finally:
            assert all(worker.stops for worker in made.workers)


async def test_a_lease_comes_with_a_ready_worker() -> None:
    """And a second one for the same model needs no second worker."""
    async with stage() as on:
        async with on.switchboard.lease(card("a")) as first, on.switchboard.lease(card("a")) as second:
            assert first.worker is second.worker
            assert first.worker.card.id == "a"
        assert len(on.workers) == 1


async def test_a_lease_on_a_serving_worker_waits_for_no_turn_of_the_loop() -> None:
    """The fast path is synchronous: no other task runs between asking and having."""
    async with stage() as on:
        async with on.switchboard.lease(card("a")):
            pass
        ran: list[str] = []

        async def other() -> None:
            ran.append("other")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            async with on.switchboard.lease(card("a")):
                assert ran == []


async def test_the_next_starts_only_when_the_last_is_gone() -> None:
    """One model at a time: the old one's whole tree goes first."""
    async with stage(obedient=False) as on, anyio.create_task_group() as tasks:
        had = anyio.Event()

        async def use(name: str) -> None:
            async with on.switchboard.lease(card(name)):
                had.set()

        tasks.start_soon(use, "a")
        first = await on.worker(1)
        first.may_be_ready.set()
        await had.wait()
        tasks.start_soon(use, "b")
        await first.stopping.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(on.workers) == 1
        first.may_be_gone.set()
        second = await on.worker(2)
        assert second.card.id == "b"
        second.may_be_ready.set()


async def test_who_waits_together_is_let_in_together() -> None:
    """Ten who wait for a load all have their lease at the same time."""
    async with stage(obedient=False) as on, anyio.create_task_group() as tasks:
        inside = 0
        all_in = anyio.Event()

        async def use() -> None:
            nonlocal inside
            async with on.switchboard.lease(card("a")):
                inside += 1
                if inside == 10:
                    all_in.set()
                await all_in.wait()

        for _ in range(10):
            tasks.start_soon(use)
        (await on.worker(1)).may_be_ready.set()


async def test_a_failed_load_reaches_everyone_who_waits() -> None:
    """With its own words; and the next model can be had."""
    async with stage(obedient=False) as on:
        told: list[str] = []

        async def use() -> None:
            with pytest.raises(LoadFailed) as caught:
                async with on.switchboard.lease(card("a")):
                    pytest.fail("there is nothing to lease")
            told.append(caught.value.message)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(use)
            worker = await on.worker(1)
            worker.failure = LoadFailed("no memory on the moon")
            worker.may_be_ready.set()
            worker.may_be_gone.set()
        assert len(told) == 3
        assert all("no memory on the moon" in each for each in told)
        on.obedient = True
        async with on.switchboard.lease(card("b")) as lease:
            assert lease.worker.card.id == "b"


async def test_a_worker_that_cannot_be_made_is_a_failed_load() -> None:
    """A full disk is told, and does not take the server down."""
    async with stage() as on:
        with pytest.raises(LoadFailed, match="No space left"):
            async with on.switchboard.lease(card("unlaunchable")):
                pytest.fail("there is nothing to lease")
        async with on.switchboard.lease(card("a")):
            pass


async def test_a_bug_in_a_worker_costs_the_worker_only() -> None:
    """An unexpected exception ends that load, is told, and leaves the place free."""
    async with stage(obedient=False) as on, AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())

        async def break_it() -> None:
            worker = await on.worker(1)
            worker.failure = RuntimeError("a bug")  # type: ignore[assignment]
            worker.may_be_ready.set()
            worker.may_be_gone.set()

        tasks.start_soon(break_it)
        with pytest.raises(LoadFailed, match="a bug"):
            async with on.switchboard.lease(card("a")):
                pytest.fail("there is nothing to lease")
        on.obedient = True
        async with on.switchboard.lease(card("b")):
            pass


async def test_who_leaves_while_waiting_is_forgotten() -> None:
    """The load goes on for the others, and nobody is admitted in the place of one who left."""
    async with stage(obedient=False) as on:
        async with anyio.create_task_group() as leaving:

            async def use() -> None:
                async with on.switchboard.lease(card("a")):
                    pytest.fail("this one has left")

            leaving.start_soon(use)
            worker = await on.worker(1)
            assert on.switchboard.waiting() == {"a": 1}
            leaving.cancel_scope.cancel()
        assert on.switchboard.waiting() == {}
        worker.may_be_ready.set()
        async with on.switchboard.lease(card("a")) as lease:
            assert lease.worker is worker
            assert [each.leases for each in on.switchboard.standings()] == [1]


async def test_a_crashed_worker_is_buried_and_a_fresh_one_started() -> None:
    """Those who come later do not meet the dead one."""
    async with stage() as on:
        async with on.switchboard.lease(card("a")) as lease:
            on.workers[0].dies.set()
            await on.workers[0].stopping.wait()
            assert lease.worker is on.workers[0]
        async with on.switchboard.lease(card("a")) as lease:
            assert lease.worker is on.workers[1]


async def test_past_the_drain_deadline_a_lease_is_cut() -> None:
    """What is done with it is cancelled, and the reason is raised."""
    async with stage(drain_max_seconds=0.05, patience=0.0) as on:
        async with anyio.create_task_group() as tasks:
            held = anyio.Event()
            cut: list[str] = []

            async def hog() -> None:
                try:
                    async with on.switchboard.lease(card("a")):
                        held.set()
                        await anyio.sleep_forever()
                except UpstreamDied as error:
                    cut.append(error.message)

            tasks.start_soon(hog)
            await held.wait()
            async with on.switchboard.lease(card("b")) as lease:
                assert lease.worker.card.id == "b"
        assert "drain_max_seconds" in cut[0]


async def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    """429 and Retry-After."""
    async with stage(obedient=False, max_waiting=1) as on, anyio.create_task_group() as tasks:

        async def use() -> None:
            async with on.switchboard.lease(card("a")):
                pass

        tasks.start_soon(use)
        await on.worker(1)
        with pytest.raises(Overloaded) as caught:
            async with on.switchboard.lease(card("a")):
                pytest.fail("the queue is full")
        assert "retry-after" in caught.value.headers()
        on.workers[0].may_be_ready.set()


async def test_shutting_down_lets_leases_end_and_refuses_the_rest() -> None:
    """Within the grace; then nothing is left."""
    async with stage() as on, anyio.create_task_group() as tasks:
        may_end = anyio.Event()
        held = anyio.Event()

        async def use() -> None:
            async with on.switchboard.lease(card("a")) as lease:
                held.set()
                await may_end.wait()
                assert lease.cut is None

        tasks.start_soon(use)
        await held.wait()
        tasks.start_soon(lambda: on.switchboard.shut_down(grace_seconds=60))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ShuttingDown):
            async with on.switchboard.lease(card("a")):
                pytest.fail("the server is shutting down")
        assert on.workers[0].stops == []
        may_end.set()
        await on.switchboard.shut_down(grace_seconds=60)
        assert on.switchboard.standings() == []


async def test_a_second_shutdown_forces() -> None:
    """A lease that would last for ever is cut."""
    async with stage() as on, anyio.create_task_group() as tasks:
        held = anyio.Event()
        cut: list[ShuttingDown] = []

        async def hog() -> None:
            try:
                async with on.switchboard.lease(card("a")):
                    held.set()
                    await anyio.sleep_forever()
            except ShuttingDown as error:
                cut.append(error)

        tasks.start_soon(hog)
        await held.wait()
        tasks.start_soon(lambda: on.switchboard.shut_down(grace_seconds=60))
        await anyio.wait_all_tasks_blocked()
        await on.switchboard.shut_down(grace_seconds=0)
        assert on.switchboard.standings() == []
        await anyio.wait_all_tasks_blocked()
        assert len(cut) == 1


async def test_loading_and_unloading_by_hand() -> None:
    """Without any request."""
    async with stage() as on:
        await on.switchboard.load(card("a"))
        assert [each.stage for each in on.switchboard.standings()] == ["serving"]
        assert on.switchboard.unload("a") == 1
        await on.workers[0].stopping.wait()


async def test_a_taken_port_is_tried_once_more() -> None:
    """On a fresh worker, before anybody is told; a second time it is told."""
    async with stage(obedient=False) as scene:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load_expecting, scene, LoadFailed)
            for number in (1, 2):
                worker = await scene.worker(number)
                worker.failure = PortTaken("taken")
                worker.may_be_gone.set()
                worker.may_be_ready.set()
        assert len(scene.workers) == 2
        scene.workers[0].stops.append("by itself: a worker whose start failed is gone")


async def load_expecting(scene: Stage, error: type[ServiceError]) -> None:
    with pytest.raises(error):
        await scene.switchboard.load(card("a"))


async def test_the_next_waits_for_the_memory() -> None:
    """A place is free when the memory is back, not when the processes are gone."""
    async with stage() as scene:
        await scene.switchboard.load(card("a"))
        back = scene.workers[0].memory_is_back = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.switchboard.load, card("b"))
            await scene.workers[0].stopping.wait()
            await anyio.wait_all_tasks_blocked()
            assert len(scene.workers) == 1
            back.set()
        assert len(scene.workers) == 2


async def test_the_end_does_not_wait_for_memory() -> None:
    """Nobody needs it any more."""
    async with stage() as scene:
        await scene.switchboard.load(card("a"))
        scene.workers[0].memory_is_back = anyio.Event()
        await scene.switchboard.shut_down(grace_seconds=0)
        assert scene.switchboard.standings() == []
