"""The right to use a worker, from asking for it to giving it back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from local_llm.catalog.card import ModelCard
from local_llm.errors import ServiceError
from local_llm.switchboard.events import Ticket
from local_llm.switchboard.worker import Worker


@dataclass(slots=True)
class Lease:
    """The right to use a worker, until the `async with` that gave it is left.

    Attributes:
        worker: ready when the lease was granted.
        waited_seconds: from asking for the lease to having it.
        switch_seconds: the part of it in which the worker was being switched to.
        holder: the task that has it; it is cancelled when the lease is cut. (A cancel scope of anyio's would
            take a tenth of a small request's time.)
        cut: why it was cut, if it was.
    """

    worker: Worker
    waited_seconds: float
    switch_seconds: float
    holder: asyncio.Task[Any]
    cut: ServiceError | None = None


class Stay:
    """One lease as a context. (A generator made one would take half as long again as what it does.)

    Args:
        card: of the model.
        take: waits for the lease.
        give_back: ends it.
    """

    __slots__ = ("_card", "_give_back", "_lease", "_take", "_ticket")

    def __init__(
        self,
        card: ModelCard,
        take: Callable[[ModelCard], Awaitable[tuple[Ticket, Lease]]],
        give_back: Callable[[Ticket], None],
    ) -> None:
        self._card = card
        self._take = take
        self._give_back = give_back

    async def __aenter__(self) -> Lease:
        self._ticket, self._lease = await self._take(self._card)
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back(self._ticket)
        lease = self._lease
        if lease.cut is None or not (kind is None or issubclass(kind, asyncio.CancelledError)):
            return
        if kind is not None and sys.version_info >= (3, 11):
            lease.holder.uncancel()
        raise lease.cut
