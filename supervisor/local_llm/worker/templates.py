"""The warm templates: one an engine, made in the background, and the decision to fork from them or not.

A template is a cache: whatever is wrong with it, workers start cold, and the log says so once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

import anyio
from anyio.abc import TaskGroup

from local_llm import gpu
from local_llm.catalog.card import Engine, ModelCard
from local_llm.engine_settings import EngineSettings
from local_llm.gpu import Device
from local_llm.settings import Settings
from local_llm.worker.chat_command import serves_itself
from local_llm.worker.command import python_of
from local_llm.worker.environment import OWN_VARIABLES, shared_environment
from local_llm.worker.launch import Launch
from local_llm.worker.nanny_process import ForkedNanny
from local_llm.worker.strays import Strays
from local_llm.worker.template import Gone, Making, Plan, Ready, Template
from local_llm.worker.trust import Trust

logger = logging.getLogger(__name__)

MAKING_SECONDS = 60.0
"""A template that has been in the making for so long is not waited for. It imports once what a cold start
imports three times, one after the other; so to wait is quicker, as long as the import gets on."""

_MOST_MADE = 3
"""Templates of one engine in a run: one that dies again and again is given up."""

# Measured as proportional set size, with a margin: vLLM 0.74 GB, the transformers worker 0.45 GB.
_COST_BYTES = {Engine.VLLM: 1 << 30, Engine.TRANSFORMERS: 600 << 20}
_LEAVE_BYTES = 4 << 30
"""Of the host's memory, for workers: with less left beside it, `auto` makes no template."""


class Templates:
    """An asynchronous context: the templates made in it are gone when it is left.

    Args:
        settings: all of them.
        environment: what workers inherit.
        folder: for temporary files; called when the first one is made.
        strays: is told of all processes.
    """

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], folder: Callable[[], Path], strays: Strays
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._folder = folder
        self._strays = strays
        self._architectures: dict[Engine, set[str]] = {}
        self._templates: dict[Engine, Template] = {}
        self._made: dict[Engine, int] = {}
        self._given_up: set[Engine] = set()
        self._trust = Trust()
        self._exit = AsyncExitStack()
        self._tasks: TaskGroup

    async def __aenter__(self) -> Templates:
        self._tasks = await self._exit.enter_async_context(anyio.create_task_group())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._exit.aclose()

    @property
    def all(self) -> Mapping[Engine, Template]:
        """For showing."""
        return self._templates

    async def prepare(self, cards: Iterable[ModelCard]) -> None:
        """Makes those that the models will need, one after the other: the costliest start first."""
        for card in cards:
            if card.engine is Engine.COMMAND or serves_itself(card):
                continue
            self._architectures.setdefault(card.engine, set()).update(filter(None, [card.architecture]))
        devices = await anyio.to_thread.run_sync(gpu.devices)
        for engine in sorted(self._architectures, key=list(Engine).index):
            template = self._make(self._plan(engine, devices))
            if template is not None:
                await template.made.wait()

    def use(self, settings: Settings) -> None:
        """Takes changed settings in: a template that they make useless goes, one that they want is made."""
        before, self._settings = self._settings, settings
        if before.engines != settings.engines:
            self._given_up.clear()
            self._made.clear()
            self._tasks.start_soon(self._renew)

    async def _renew(self) -> None:
        devices = await anyio.to_thread.run_sync(gpu.devices)
        for engine in self._architectures:
            plan, template = self._plan(engine, devices), self._templates.get(engine)
            if template is None:
                self._make(plan)
            elif not template.plan.suits(plan) or self._off(engine):
                template.retire()

    def _off(self, engine: Engine) -> bool:
        settings = self._settings.engine_settings(engine)
        return not isinstance(settings, EngineSettings) or settings.warm == "off"

    async def ready_for(self, launch: Launch) -> None:
        """Returns when it is decided whether there is a template for it, or that has taken too long."""
        plan = self._plan_of(launch)
        if plan is None:
            return
        template = self._templates.get(plan.engine) or self._make(plan)
        if template is not None and template.plan.suits(plan) and isinstance(template.state, Making):
            # A start that only waits makes no progress; the deadline for that is not to be met.
            stall_seconds = self._settings.load.stall_seconds or math.inf
            too_long = template.state.since + MAKING_SECONDS - time.monotonic()
            with anyio.move_on_after(min(too_long, stall_seconds / 2)):
                await template.made.wait()

    async def fork(self, launch: Launch, control_fd: int, log_fd: int) -> ForkedNanny | None:
        """A nanny that will fork its worker; None if that has to start cold.

        Args:
            launch: the worker.
            control_fd: a Unix stream socket, for the nanny.
            log_fd: becomes the worker's stdout and stderr.
        """
        plan = self._plan_of(launch)
        template = None if plan is None else self._templates.get(plan.engine)
        if plan is None or template is None or not template.plan.suits(plan):
            return None
        return await template.fork(control_fd, log_fd)

    def loaded(self, model_id: str, *, warm: bool) -> None:
        """A worker of the model became ready."""
        if not warm and self._trust.cold_start_ready(model_id):
            logger.warning(
                "%s starts cold from now on: its start from the warm template failed, a cold one did not",
                model_id,
            )

    def failed(self, model_id: str, *, warm: bool) -> None:
        """A worker of the model did not become ready, for no reason that is known."""
        if warm:
            self._trust.warm_start_failed(model_id)
        else:
            self._trust.cold_start_failed(model_id)

    def _plan_of(self, launch: Launch) -> Plan | None:
        """What its template is made of; None if it is to start cold."""
        card = launch.identity.card
        if serves_itself(card) or self._off(card.engine) or not self._trust.may_fork(card.id):
            return None
        plan = self._plan(card.engine, launch.devices)
        return plan if plan.suits(Plan(card.engine, launch.argv[0], _shared(launch.env))) else None

    def _plan(self, engine: Engine, devices: Sequence[Device]) -> Plan:
        """What the template of an engine is made of: never of what the settings say of a single model."""
        env = shared_environment(engine, self._settings, devices, self._environment)
        return Plan(
            engine,
            python_of(engine, self._settings),
            _shared(env),
            tuple(sorted(self._architectures.get(engine, ()))),
        )

    def _make(self, plan: Plan) -> Template | None:
        """Begins to make one, if none of the engine is there and there may be one."""
        engine = plan.engine
        if engine in self._templates or engine in self._given_up or not self._wanted(plan):
            return None
        self._made[engine] = self._made.get(engine, 0) + 1
        template = self._templates[engine] = Template(plan, self._folder(), self._strays)
        self._tasks.start_soon(self._accompany, template)
        return template

    def _wanted(self, plan: Plan) -> bool:
        """Whether the settings, or the memory that is free, allow a template."""
        settings = self._settings.engine_settings(plan.engine)
        if not isinstance(settings, EngineSettings):
            return False
        if settings.warm != "auto":
            return settings.warm == "on"
        free_bytes = gpu.host_memory().free_bytes
        if free_bytes >= _COST_BYTES[plan.engine] + _LEAVE_BYTES:
            return True
        self._given_up.add(plan.engine)
        logger.info("too little memory is free for a warm template of %s", plan.engine.value)
        return False

    async def _accompany(self, template: Template) -> None:
        engine = template.plan.engine
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._announce, template)
            await template.live()
        del self._templates[engine]
        match template.state:
            case Gone(reason, unfit) if unfit or self._made.get(engine, 0) >= _MOST_MADE:
                self._given_up.add(engine)
                last = "".join(f"\n  {line}" for line in template.last_lines)
                logger.warning(
                    "no warm template of %s, its workers start cold: %s%s", engine.value, reason, last
                )
            case Gone(reason):
                if self._make(self._plan(engine, await anyio.to_thread.run_sync(gpu.devices))):
                    logger.info("the warm template of %s is made anew: %s", engine.value, reason)

    async def _announce(self, template: Template) -> None:
        await template.made.wait()
        if isinstance(template.state, Ready):
            state = template.state
            fields = {
                "engine": template.plan.engine.value,
                "seconds": state.seconds,
                "proportional_bytes": state.proportional_bytes,
                "threads": state.threads,
            }
            logger.info("warm template ready", extra={"fields": fields})


def _shared(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in OWN_VARIABLES}
