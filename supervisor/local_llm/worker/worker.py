"""One worker's life, from its launch until nothing of it is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed, WarmStartFailed
from local_llm.settings import Settings
from local_llm.worker.failures import load_failure, recognised, telling
from local_llm.worker.launch import Identity, Launch
from local_llm.worker.load_watch import LoadWatch
from local_llm.worker.log_tail import MAX_LINES, LogTail
from local_llm.worker.memory_back import Footprint, held_by, wait_memory_back
from local_llm.worker.nanny_link import Event, NannyLink
from local_llm.worker.outcome import Ended, Outcome
from local_llm.worker.phases import Lifecycle, Phase
from local_llm.worker.probe import Probe
from local_llm.worker.progress import LoadPhase, Progress
from local_llm.worker.pulse import Pulse
from local_llm.worker.shared_memory import Segment, clean_after
from local_llm.worker.strays import Strays
from local_llm.worker.templates import Templates
from local_llm.worker.tree_use import TreeUse, Use

logger = logging.getLogger(__name__)

# How long the last lines may take through the pipe once the process is dead. Usually the nanny's sweep
# closes the pipe within milliseconds.
_LAST_LINES_SECONDS = 0.25

# A nanny that is not done so long after the last grace is stopped, or waits for a process that the kernel
# holds (a driver that hangs). It is killed then, and what survives that is reported and left alone.
GIVE_UP_SECONDS = 30.0


class Worker:
    """One worker's life. Outcomes to await; no flags to poll.

    The task that `start` puts into `tasks` owns the processes; everything else asks it and waits.
    Cancelling that task kills the worker at once.

    Args:
        identity: the model, port and key.
        prepare: decides what to run and makes the temporary folder; called in a thread by `start`.
        settings: deadlines, until `use` brings others.
        tasks: where the worker's own task lives.
        strays: takes over should the nanny be killed.
        templates: workers are forked from them where that is possible.
    """

    def __init__(
        self,
        identity: Identity,
        prepare: Callable[[], Launch],
        *,
        settings: Settings,
        tasks: TaskGroup,
        strays: Strays,
        templates: Templates,
    ) -> None:
        self._identity = identity
        self._prepare = prepare
        self._settings = settings
        self._tasks = tasks
        self._strays = strays
        self._templates = templates
        self._life = Lifecycle(identity)
        self._watch = LoadWatch(identity, lambda: self._settings.load)
        self._tail = LogTail(identity, self._watch.take_line)
        self._outcome = Outcome()
        self._footprint = Footprint()
        self._link: NannyLink | None = None
        self._tree: TreeUse | None = None
        self._begun = False
        self._refusal: LoadFailed | None = None
        self._nanny_finished = False
        self._left: set[Segment] = set()  # what its processes held whose nanny was killed
        self._kill_at = math.inf
        self._ready_at = math.inf
        self._started = anyio.Event()
        self._ready = anyio.Event()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()
        self._gone = anyio.Event()

    @property
    def worker_id(self) -> str:
        """Unique in this run of the supervisor."""
        return self._identity.worker_id

    @property
    def card(self) -> ModelCard:
        """The model it serves."""
        return self._identity.card

    @property
    def base_url(self) -> str:
        """Where it answers once it is ready."""
        return self._identity.base_url

    @property
    def key(self) -> str:
        """What it demands as `Authorization: Bearer` on every path."""
        return self._identity.key

    @property
    def phase(self) -> Phase:
        """For showing; decisions await an outcome instead."""
        return self._life.phase

    @property
    def progress(self) -> Progress:
        """How far its load is; for showing."""
        return self._watch.progress

    @property
    def load_phases(self) -> list[tuple[LoadPhase, float]]:
        """What its load did until it was ready, or until now, each with its seconds; for showing."""
        return self._watch.phases(min(self._ready_at, time.monotonic()))

    @property
    def nanny_pid(self) -> int | None:
        """The nanny's process id; None before it exists."""
        return None if self._link is None else self._link.pid

    def last_lines(self, count: int = 20) -> list[str]:
        """The last lines of its log that may tell something, oldest first."""
        return telling(self._tail.last(MAX_LINES))[-count:]

    def use(self, settings: Settings) -> None:
        """Takes changed settings in: deadlines that run, and those to come. What it runs stays as it is."""
        self._settings = settings

    async def start(self) -> None:
        """Starts it, once, and returns when it is ready.

        Cancelled, it stops the worker before the cancellation goes on.

        Raises:
            LoadFailed: it did not become ready; nothing is left of it. `PortTaken` is one of them.
        """
        self._watch.begin()
        self._tasks.start_soon(self._live)
        self._begun = True
        try:
            failure = await self._load()
        except BaseException:
            await self.stop(reason="its load was cancelled", grace_seconds=0)
            raise
        if failure is not None:
            by_others = self._outcome.by_others
            await self.stop(reason=failure)
            raise self._refusal or self._failed(failure, by_others=by_others)
        self._templates.loaded(self.card.id, warm=self._warm)

    @property
    def _warm(self) -> bool:
        return self._link is not None and self._link.warm

    def _failed(self, what_happened: str, *, by_others: bool) -> LoadFailed:
        """The error; another one if the template may be to blame: nothing usual explains it."""
        lines = self._tail.last(MAX_LINES)
        error = load_failure(self.card.id, what_happened, lines, folder=self.card.path)
        if by_others or recognised(lines) is not None:
            return error
        self._templates.failed(self.card.id, warm=self._warm)
        return WarmStartFailed(error.message) if self._warm else error

    async def stop(self, *, reason: str, grace_seconds: float | None = None) -> None:
        """Stops it, whatever its phase, and returns when it is gone: nothing of it remains.

        May be called repeatedly, and together; of several graces the one that ends first counts. A
        caller that is cancelled waits on all the same.

        Args:
            reason: for the log.
            grace_seconds: between SIGTERM and SIGKILL; None means the setting, 0 kills at once.
        """
        grace_seconds = self._settings.stop.grace_seconds if grace_seconds is None else grace_seconds
        if not self._begun and self.phase is Phase.LAUNCHING:
            self._life.enter(Phase.GONE, reason)
            self._ended.set()
            self._gone.set()
        self._outcome.asked = self._outcome.asked or not self._stopping.is_set()
        self._enter_stopping(reason)
        self._end(grace_seconds)
        with anyio.CancelScope(shield=True):
            await self._gone.wait()

    async def wait_ended(self) -> Ended:
        """Waits until the worker's main process has ended, whoever ended it."""
        await self._ended.wait()
        return self._outcome.ended(self.last_lines())

    async def memory_back(self, wanted_bytes: Callable[[], int | None]) -> None:
        """Waits, once it is stopped, until its device memory is back; at most `stop.memory_back_seconds`.

        After that the next worker is launched all the same, if what is free can hold its model.

        Args:
            wanted_bytes: what the next worker needs at this moment; None if there is no next one.
        """
        seconds = self._settings.stop.memory_back_seconds
        if not await wait_memory_back(self._footprint, seconds, wanted_bytes):
            held = await anyio.to_thread.run_sync(held_by)
            logger.warning("after %g s the GPU memory of %s is not back. %s", seconds, self.worker_id, held)

    async def _load(self) -> str | None:
        """Races the probe, the worker's end and the deadlines.

        Returns:
            None if the worker is ready, else what happened, to follow "its worker".
        """
        failure: str | None = None

        async def until_over() -> None:
            nonlocal failure
            failure = await self._watch.until_over(self._look)
            race.cancel_scope.cancel()

        async with anyio.create_task_group() as race:
            race.start_soon(_cancel_when, self._stopping, race.cancel_scope)
            race.start_soon(until_over)
            await self._started.wait()
            assert self._link is not None  # noqa: S101 - it told that the program was started
            failure = await Probe(self._identity, self._link.pid).until_answered()
            # While it lives for certain: which of its processes NVML shows is the proof of their end later.
            await anyio.to_thread.run_sync(self._look)
            race.cancel_scope.cancel()
        if self._stopping.is_set():
            ended = await self.wait_ended()
            return "was stopped while it was loading" if ended.asked else ended.in_words()
        if failure is None:
            self._life.enter(Phase.READY, "answers to its key and serves its model")
            self._ready_at = time.monotonic()
            self._ready.set()
        return failure

    def _look(self) -> Use:
        """What its processes have used; notes what would explain their end. In a thread."""
        self._outcome.look()
        if self._tree is None:
            return Use(0, 0.0)
        use = self._tree.look()
        self._footprint.look(self._tree.pids)
        return use

    async def _live(self) -> None:
        """The worker's own task: its nanny from birth to death."""
        try:
            with anyio.CancelScope(shield=True):
                self._link = await self._start_nanny()
            if self._link is not None:
                await self._accompany(self._link)
        except Exception:
            logger.exception("%s: a mistake in the supervisor; the worker is ended", self.worker_id)
        finally:
            self._enter_stopping("its nanny is gone")
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(clean_after, self._identity.temporary, self._left)
            self._life.enter(Phase.GONE, "nothing is left of it")
            self._ended.set()
            self._gone.set()

    async def _start_nanny(self) -> NannyLink | None:
        try:
            launch = await anyio.to_thread.run_sync(self._prepare)
            await self._until_template(launch)
            if self._stopping.is_set():
                self._outcome.not_started("it was stopped first")
                return None
            link = await NannyLink.start(launch, self._strays, self._templates)
        except (OSError, LoadFailed) as problem:
            self._refusal = problem if isinstance(problem, LoadFailed) else None
            self._outcome.not_started(str(problem))
            self._enter_stopping("could not be started")
            return None
        self._footprint.before = launch.devices
        self._tree = TreeUse(link.pid)
        if self._stopping.is_set():
            link.stop(0)
        return link

    async def _accompany(self, link: NannyLink) -> None:
        """Reads the log and the nanny's events to their end, then sees that the nanny's work is done."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tail.read, link.log_fd)
            tasks.start_soon(self._feel_pulse)
            tasks.start_soon(self._outlast, link)
            try:
                async for event in link.events():
                    self._take(event, tasks)
            finally:
                # Reached when the nanny has left, was killed, or this task is cancelled.
                with anyio.CancelScope(shield=True):
                    link.hang_up()
                    await link.wait(GIVE_UP_SECONDS)
                    if not self._nanny_finished:
                        await self._do_without_nanny()
                    with anyio.move_on_after(_LAST_LINES_SECONDS):
                        await self._tail.ended.wait()
            tasks.cancel_scope.cancel()

    async def _do_without_nanny(self) -> None:
        """It was killed, or could not even be imported; the log says which."""
        if not self._started.is_set():
            self._outcome.not_started("its nanny ended first")
        self._outcome.nanny_lost = True
        self._enter_stopping("its nanny was killed")
        self._left = await self._strays.sweep(give_up_seconds=GIVE_UP_SECONDS)

    async def _until_template(self, launch: Launch) -> None:
        """Until there is a template for it, or it is known that there is none, or it is to be stopped."""
        async with anyio.create_task_group() as race:
            race.start_soon(_cancel_when, self._stopping, race.cancel_scope)
            await self._templates.ready_for(launch)
            race.cancel_scope.cancel()

    async def _feel_pulse(self) -> None:
        """While it is ready: notices that it answers no more, and kills it."""
        await self._ready.wait()
        lost = await Pulse(self._identity, lambda: self._settings.stop, self._outcome.look).until_lost()
        if self.phase is Phase.READY:
            self._outcome.killed(lost)
            self._enter_stopping(f"{lost} and is killed")
            self._end(0)

    def _end(self, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL after the grace."""
        self._kill_at = min(self._kill_at, anyio.current_time() + grace_seconds)
        if self._link is not None:
            self._link.stop(grace_seconds)

    async def _outlast(self, link: NannyLink) -> None:
        """Once it has to end: kills a nanny that does not get done with it."""
        await self._stopping.wait()
        self._kill_at = min(self._kill_at, anyio.current_time() + self._settings.stop.grace_seconds)
        while (left := self._kill_at + GIVE_UP_SECONDS - anyio.current_time()) > 0:  # noqa: ASYNC110
            await anyio.sleep(min(left, 1.0))  # meanwhile another call of `stop` may have shortened it
        logger.error("%s: its nanny (process %d) is not done and is killed", self.worker_id, link.pid)
        link.kill()

    def _take(self, event: Event, tasks: TaskGroup) -> None:
        """One message of the nanny."""
        match event:
            case {"event": "started"}:
                if self.phase is Phase.LAUNCHING:
                    self._life.enter(Phase.LOADING, f"its program runs as process {event['pid']}")
                self._started.set()
            case {"event": "not_started", "message": str(message)}:
                self._outcome.not_started(message)
                self._enter_stopping(f"could not be started: {message}")
            case {"event": "exited", "code": code, "signal": number}:
                self._outcome.exited(code, number)
                self._enter_stopping(self._outcome.ended(()).in_words())
                tasks.start_soon(self._announce_end)
            case {"event": "gone", "swept": swept, "shm_unlinked": unlinked, "shm_unclaimed": unclaimed}:
                self._nanny_finished = True
                if swept or unlinked:
                    logger.info("%s: swept %s, unlinked %s", self.worker_id, swept, unlinked)
                if unclaimed:
                    logger.warning(
                        "%s was killed by another program; in /dev/shm these may be left of it: %s",
                        self.worker_id,
                        unclaimed,
                    )
            case _:
                logger.warning("%s: its nanny says %s", self.worker_id, event)

    async def _announce_end(self) -> None:
        with anyio.move_on_after(_LAST_LINES_SECONDS):
            await self._tail.ended.wait()
        self._ended.set()

    def _enter_stopping(self, reason: str) -> None:
        if self.phase not in (Phase.STOPPING, Phase.GONE):
            self._life.enter(Phase.STOPPING, reason)
        self._stopping.set()


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
