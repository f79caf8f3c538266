"""One place's worker, from its launch until nothing of it is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed as LoadFailedError
from local_llm.errors import PortTaken, ServiceError, UpstreamDied, WarmStartFailed
from local_llm.switchboard import events
from local_llm.switchboard.events import WorkerNumber
from local_llm.switchboard.worker import Worker

log = logging.getLogger(__name__)


class Life:
    """Tells the switchboard what becomes of a worker; never whether it should live.

    Args:
        number: the worker's, in the policy.
        worker: not yet started.
        began_at: when the switch to it began; times are seconds of the monotonic clock.
        launch: makes another worker, should this one have bad luck.
        tell: takes `Loaded`, `LoadFailed` or `Crashed`.

    Attributes:
        worker: the one that lives now.
        began_at: as above.
        ready_at: when it became ready; infinity before.
    """

    def __init__(
        self,
        number: WorkerNumber,
        worker: Worker,
        began_at: float,
        *,
        launch: Callable[[ModelCard], Worker],
        tell: Callable[[events.Event], None],
    ) -> None:
        self.worker = worker
        self.began_at = began_at
        self.ready_at = math.inf
        self._number = number
        self._launch = launch
        self._tell = tell
        self._stop_ordered = anyio.Event()
        self._stop_reason = "it ended"

    def order_stop(self, reason: str) -> None:
        """Ends it, whatever it does."""
        self._stop_reason = reason
        self._stop_ordered.set()

    async def live(self, memory_wanted: Callable[[], int | None], closing: anyio.Event) -> None:
        """Returns when nothing of it is left, and its memory is back; cancelled, not before that either.

        Args:
            memory_wanted: bytes that the next worker needs at this moment; None if there is no next one.
            closing: the server ends, and nobody needs the memory.
        """
        try:
            async with anyio.create_task_group() as race:
                race.start_soon(_cancel_when, self._stop_ordered, race)
                await self._serve()
                race.cancel_scope.cancel()
        except Exception as error:  # whatever it was: the worker goes, the server stays
            log.exception("worker %s failed unexpectedly", self.worker.worker_id)
            failed = LoadFailedError(f"The worker of {self.worker.card.id!r} failed: {error!r}")
            self._tell(events.LoadFailed(time.monotonic(), self._number, failed))  # of these two,
            self._tell(
                events.Crashed(time.monotonic(), self._number, failed)
            )  # the one not fitting is ignored
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(memory_wanted, closing)

    async def _serve(self) -> None:
        try:
            await self._start()
        except ServiceError as error:
            self._tell(events.LoadFailed(time.monotonic(), self._number, error))
            return
        worker = self.worker
        self.ready_at = time.monotonic()
        self._tell(events.Loaded(self.ready_at, self._number))
        ended = await worker.wait_ended()
        lines = "\n".join(worker.last_lines(8))
        words = ended.in_words()
        message = f"The worker of {worker.card.id!r} crashed: it {words}. Its last lines:\n{lines}"
        log.warning("worker %s of %s %s", worker.worker_id, worker.card.id, words)
        self._tell(events.Crashed(time.monotonic(), self._number, UpstreamDied(message)))

    async def _start(self) -> None:
        """Starts the worker; a fresh one if the first one's port was taken, or its template was bad.

        Raises:
            ServiceError: it did not become ready.
        """
        try:
            await self.worker.start()
        except (PortTaken, WarmStartFailed) as error:
            why = "its port was taken" if isinstance(error, PortTaken) else "its warm start failed"
            log.warning("worker %s: %s; another is tried", self.worker.worker_id, why)
            self.worker = self._launch(self.worker.card)
            await self.worker.start()

    async def _end(self, memory_wanted: Callable[[], int | None], closing: anyio.Event) -> None:
        try:
            await self.worker.stop(reason=self._stop_reason)
            async with anyio.create_task_group() as race:
                race.start_soon(_cancel_when, closing, race)
                await self.worker.memory_back(memory_wanted)
                race.cancel_scope.cancel()
        except Exception:  # its place must become free all the same
            log.exception("worker %s could not be stopped cleanly", self.worker.worker_id)


async def _cancel_when(event: anyio.Event, race: TaskGroup) -> None:
    await event.wait()
    race.cancel_scope.cancel()
