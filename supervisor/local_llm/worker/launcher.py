"""Makes workers, and answers for what all of them together leave behind."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType

import anyio
from anyio.abc import TaskGroup

from local_llm import gpu
from local_llm.catalog.card import Engine, ModelCard
from local_llm.fit import least_need_bytes
from local_llm.model_gpus import visible_devices
from local_llm.settings import Settings
from local_llm.worker import command
from local_llm.worker.launch import Identity, Launch
from local_llm.worker.memory_back import refuse_shortage
from local_llm.worker.phases import Phase
from local_llm.worker.progress import LoadPhase
from local_llm.worker.read_ahead import ReadAhead
from local_llm.worker.run_folder import RunFolder
from local_llm.worker.strays import Strays, adopt_orphans
from local_llm.worker.templates import Templates
from local_llm.worker.worker import Worker

_REAP_EVERY_SECONDS = 10.0


class Launcher:
    """An asynchronous context: workers made in it are gone when it is left.

    To be entered and left by the same task. Left by an exception or a cancellation, the workers are
    killed at once; otherwise they are stopped with the usual grace.

    Args:
        settings: all of them.
        environment: what workers inherit, less secrets; None means this process's own.

    Attributes:
        templates: the warm ones, from which workers are forked.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = dict(os.environ if environment is None else environment)
        self._numbers = itertools.count(1)
        self._workers: list[Worker] = []
        self._read_ahead = ReadAhead(settings.load, self._has_yet_to_read)
        self._exit = AsyncExitStack()
        self._folder: RunFolder
        self._tasks: TaskGroup
        self._strays: Strays
        self.templates: Templates

    async def __aenter__(self) -> Launcher:
        adopt_orphans()
        async with AsyncExitStack() as stack:
            self._folder = stack.enter_context(await anyio.to_thread.run_sync(RunFolder))
            self._strays = Strays()
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self._reap_orphans)
            self._tasks.start_soon(self._read_ahead.run)
            templates = Templates(self._settings, self._environment, lambda: self._folder.path, self._strays)
            self.templates = await stack.enter_async_context(templates)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        grace_seconds = None if kind is None else 0
        try:
            await self.stop_all(reason="the server is stopping", grace_seconds=grace_seconds)
        finally:
            self._tasks.cancel_scope.cancel()
            await self._exit.aclose()

    def worker(self, card: ModelCard) -> Worker:
        """A worker for `card`, not yet started."""
        worker_id = f"w{next(self._numbers)}"
        ready_path = "/health"
        if card.engine is Engine.COMMAND:
            ready_path = self._settings.model_settings(card.id).ready_path
        identity = Identity.fresh(worker_id, card, self._folder.path / worker_id, ready_path)
        prepare = functools.partial(self._prepare, identity)
        worker = Worker(
            identity,
            prepare,
            settings=self._settings,
            tasks=self._tasks,
            strays=self._strays,
            templates=self.templates,
        )
        self._workers = [each for each in self._workers if each.phase is not Phase.GONE]
        self._workers.append(worker)
        return worker

    def use(self, settings: Settings) -> None:
        """Takes changed settings in: for all workers, those that are made already too, and the templates."""
        self._settings = settings
        for worker in self._workers:
            worker.use(settings)
        self.templates.use(settings)

    def foresee(self, card: ModelCard | None) -> None:
        """This model will be loaded next: what can be done before its predecessor has gone begins now."""
        self._read_ahead.foresee(card)

    def _has_yet_to_read(self, card: ModelCard) -> bool:
        """Whether a worker of the model is on its way to its weights."""
        return any(
            each.card == card
            and each.phase in (Phase.LAUNCHING, Phase.LOADING)
            and each.progress.phase is LoadPhase.ENGINE_START
            for each in self._workers
        )

    async def stop_all(self, *, reason: str, grace_seconds: float | None = None) -> None:
        """Stops every worker there is, all at the same time.

        Args:
            reason: for the log.
            grace_seconds: as in `Worker.stop`; while this runs, a second call with 0 forces it.
        """
        async with anyio.create_task_group() as stops:
            for worker in self._workers:
                stops.start_soon(functools.partial(worker.stop, reason=reason, grace_seconds=grace_seconds))

    def _prepare(self, identity: Identity) -> Launch:
        """In a thread: NVML takes its time. Now, not earlier, the memory of the predecessor is free.

        Raises:
            LoadFailed: too little memory is free.
            OSError: the temporary folder cannot be made.
        """
        devices = gpu.devices()
        launch = command.launch(identity, self._settings, devices=devices, environment=self._environment)
        need_bytes = least_need_bytes(identity.card, self._settings)
        if need_bytes is not None:
            visible = visible_devices(devices, launch.env.get("CUDA_VISIBLE_DEVICES"))
            refuse_shortage(identity.card.id, need_bytes, visible)
        self._folder.make(identity.worker_id)
        return launch

    async def _reap_orphans(self) -> None:
        while True:
            await anyio.sleep(_REAP_EVERY_SECONDS)
            await self._strays.reap_orphans()
