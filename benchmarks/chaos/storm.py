"""All actors together, in phases: storm, calm, storm, calm, and an end in the middle of requests."""

from __future__ import annotations

import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from benchmarks.chaos import asking
from benchmarks.chaos.asking import Ask, Manner
from benchmarks.chaos.clients import Clients, clients_of, pause_seconds
from benchmarks.chaos.faults import strike, worker_trees
from benchmarks.chaos.folders import Folders
from benchmarks.chaos.judging import CUT, judge
from benchmarks.chaos.leftovers import MARK_VARIABLE, Leftovers, adopt_orphans, reap
from benchmarks.chaos.program import Program, Weight
from benchmarks.chaos.scenario import FAKE, REAL, Scenario
from tests.fake_engine import fake_python

SETTLE_SECONDS = 6.0
"""Longer than the supervisor keeps an idle connection to a worker (4 s)."""

LEFTOVERS_SECONDS = 10.0
WEIGH_EVERY_SECONDS = 1.0

RESTART_SECONDS = 1.0
"""What a client waits before it tries a server again that was not there."""


@dataclass(slots=True)
class Figures:
    """What a run came to.

    Attributes:
        outcomes: requests by what became of them.
        faults: by kind.
        violations: what must not be, in words.
        longest_wait: of a request that was answered in full: seconds to its first byte, and whose.
        calms: what the supervisor held in each calm.
        storm: what it held every second from the first calm on.
    """

    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    switches: int = 0
    loads: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    longest_wait: tuple[float, str] = (0.0, "")
    calms: list[Weight] = field(default_factory=list)
    storm: list[Weight] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)


class Storm:
    """One run.

    Args:
        scenario: how wild.
        seed: decides what everybody decides.
        folders: the models.
        program: the server, not yet started.
        leftovers: looks for them.
        figures: filled in.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        folders: Folders,
        program: Program,
        leftovers: Leftovers,
        figures: Figures,
    ) -> None:
        self._scenario = scenario
        self._seed = seed
        self._folders = folders
        self._program = program
        self._leftovers = leftovers
        self._figures = figures
        self._asked: Counter[int] = Counter()
        self._clients = [self._chance(f"client {number}") for number in range(scenario.clients)]
        self._striker = self._chance("striker")
        self._landlord = self._chance("landlord")
        self._reaper = self._chance("reaper")

    def _chance(self, actor: str) -> random.Random:
        """An actor's own, so that its decisions do not depend on how the others get on."""
        return random.Random(f"{self._seed}/{actor}")

    async def run(self, seconds: float) -> None:
        """Everything, from the first start to the last leftover."""
        await self._program.start()
        await self._blow(seconds / 2, ends_of_supervisor=True)
        await self._calm()
        before = len(self._program.weights)
        await self._blow(seconds / 2, ends_of_supervisor=False)
        self._figures.storm = self._program.weights[before:]
        await self._calm()
        await self._end()

    async def _blow(self, seconds: float, *, ends_of_supervisor: bool) -> None:
        """A storm of so many seconds; returns when the last client has its answer."""
        until = time.monotonic() + seconds
        scenario = self._scenario
        async with self._new_clients() as clients, anyio.create_task_group() as tasks:
            for number, chance in enumerate(self._clients):
                tasks.start_soon(self._be_a_client, clients, number, chance, until)
            tasks.start_soon(self._act, self._strike, self._striker, scenario.strike_seconds, until)
            tasks.start_soon(self._act, self._change_a_folder, self._landlord, scenario.folder_seconds, until)
            tasks.start_soon(self._weigh, until)
            if ends_of_supervisor:
                tasks.start_soon(self._end_the_supervisor, until)

    def _new_clients(self) -> AbstractAsyncContextManager[Clients]:
        return clients_of(self._program.url, self._scenario.hung_seconds)

    async def _be_a_client(self, clients: Clients, number: int, chance: random.Random, until: float) -> None:
        while await _slept(pause_seconds(chance, self._scenario.client_pause_seconds), until):
            self._asked[number] += 1
            ask = asking.draw(
                chance,
                f"c{number}-{self._asked[number]}",
                self._folders.models,
                longest=self._scenario.longest,
            )
            if await self._send(clients, ask) == CUT:
                await anyio.sleep(RESTART_SECONDS)

    async def _send(self, clients: Clients, ask: Ask) -> str:
        seen = await clients.send(ask)
        verdict = judge(ask, seen, self._program.outages)
        self._figures.outcomes[verdict.outcome] += 1
        name = ask.model.id if ask.model else ask.path
        if verdict.wrong is not None:
            self._wrong(f"{ask.request_id} {name} {ask.path} ({ask.manner.value}): {verdict.wrong}")
        if verdict.outcome == "complete" and ask.manner is Manner.PATIENT:
            wait = (seen.answered - seen.began, f"{ask.request_id} {name}")
            self._figures.longest_wait = max(self._figures.longest_wait, wait)
        return verdict.outcome

    async def _act(
        self, act: Callable[[random.Random], str | None], chance: random.Random, mean: float, until: float
    ) -> None:
        while await _slept(pause_seconds(chance, mean), until):
            fault = act(chance)
            if fault is not None:
                self._figures.faults[fault] += 1

    def _strike(self, chance: random.Random) -> str | None:
        return strike(chance, self._program.pid, {each.id for each in self._folders.models if each.bystander})

    def _change_a_folder(self, chance: random.Random) -> str | None:
        fault = self._folders.decide(chance)
        return None if fault is None else f"model {fault}"

    async def _end_the_supervisor(self, until: float) -> None:
        """Kills it now and then, or asks it to go in the middle of things, and starts it again."""
        chance = self._reaper
        mean = self._scenario.supervisor_seconds
        pause = min(mean, (until - time.monotonic()) / 2)
        while await _slept(pause * chance.uniform(0.3, 1), until):
            pause = 1.5 * mean
            if chance.random() < 0.65:
                self._figures.faults["supervisor SIGKILLed"] += 1
                await self._program.kill()
            else:
                self._figures.faults["supervisor SIGTERMed"] += 1
                await self._program.terminate()
            await self._program.start()
            reap({self._program.pid})

    async def _weigh(self, until: float) -> None:
        while await _slept(WEIGH_EVERY_SECONDS, until):
            self._program.weigh()

    async def _calm(self) -> None:
        """Nothing is wrong any more: every model answers, and what the server holds is noted."""
        self._folders.mend_all()
        chance = self._chance("calm")
        async with self._new_clients() as clients:
            # The bystander last: it is what is loaded while the weight is taken.
            for model in sorted(self._folders.models, key=lambda each: each.bystander):
                for number in range(2):
                    ask = asking.well_formed(chance, f"calm-{model.id.replace('/', '-')}-{number}", model)
                    outcome = await self._send(clients, ask)
                    if outcome != "complete":
                        self._wrong(f"{ask.request_id} {model.id}: in the calm it got {outcome!r}")
        await self._take_stock()

    async def _take_stock(self) -> None:
        """Waits for the connections to workers to be closed, then looks at what is there.

        The second time it need not wait if no more is there than the first time.
        """
        at_most = self._figures.calms[0].descriptors if self._figures.calms else 0
        with anyio.move_on_after(SETTLE_SECONDS):
            while self._descriptors() > at_most:  # noqa: ASYNC110 - another process tells no event
                await anyio.sleep(0.2)
        weight = self._program.weigh()
        if weight is None:
            self._wrong("the server is not there in the calm")
            return
        self._figures.calms.append(weight)
        trees = worker_trees(self._program.pid)
        if len(trees) != 1:
            self._wrong(f"{len(trees)} workers in the calm: {[tree.model_id for tree in trees]}")

    def _descriptors(self) -> float:
        weight = self._program.weigh()
        return math.inf if weight is None else weight.descriptors

    async def _end(self) -> None:
        """SIGTERM in the middle of requests, then nothing may be left."""
        chance = self._chance("end")
        async with self._new_clients() as clients, anyio.create_task_group() as tasks:
            for number in range(self._scenario.clients):
                model = chance.choice(self._folders.models)
                ask = asking.well_formed(chance, f"end-{number}", model)
                tasks.start_soon(self._send, clients, ask)
            await anyio.sleep(1)
            await self._program.terminate()
        self._figures.leftovers = await anyio.to_thread.run_sync(
            self._leftovers.find, self._program.port, LEFTOVERS_SECONDS
        )

    def _wrong(self, what: str) -> None:
        self._figures.violations.append(f"{time.monotonic() - self._figures.began:6.1f} s  {what}")


async def _slept(seconds: float, until: float) -> bool:
    """Sleeps; False, and not so long, if `until` comes first."""
    left = until - time.monotonic()
    await anyio.sleep(max(0.0, min(seconds, left)))
    return seconds < left


async def run(
    *,
    seconds: float,
    seed: int,
    real_models: Path | None,
    watch: Callable[[Figures, Program], None],
    watch_every_seconds: float,
) -> Figures:
    """A whole run.

    Args:
        seconds: of storm; the calms come on top.
        seed: of all decisions.
        real_models: prepared models for the real engines; None: fake engines.
        watch: called now and then, to show how it goes.
        watch_every_seconds: how often.
    """
    adopt_orphans()
    figures = Figures()
    scenario = FAKE if real_models is None else REAL
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-", dir="/tmp")))
        temporary = folder / "t"  # short: Unix sockets have long names
        temporary.mkdir()
        folders = Folders(folder, real_models)
        mark = f"chaos{os.getpid()}"
        settings = dict(scenario.settings)
        if real_models is None:
            python = str(fake_python(folder))
            settings["engines"] = {
                name: {"python": python, "warm": "on"} for name in ("vllm", "transformers")
            }
        leftovers = Leftovers(mark, temporary, unmarked=real_models is not None)
        stack.callback(leftovers.end)
        async with anyio.create_task_group() as tasks:
            environment = {"TMPDIR": str(temporary), MARK_VARIABLE: mark}
            program = Program(folders.models_dir, folder, settings, environment, tasks)
            tasks.start_soon(_watch, watch, figures, program, watch_every_seconds)
            await Storm(scenario, seed, folders, program, leftovers, figures).run(seconds)
            tasks.cancel_scope.cancel()
    figures.seconds = time.monotonic() - figures.began
    figures.switches, figures.loads = program.switches, program.loads
    figures.violations += [f"in the log: {each}" for each in program.troubles]
    return figures


async def _watch(
    watch: Callable[[Figures, Program], None], figures: Figures, program: Program, every_seconds: float
) -> None:
    while True:
        await anyio.sleep(every_seconds)
        watch(figures, program)
