"""What the switchboard asks of a worker. The worker room has the real one, tests have others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from local_llm.catalog.card import ModelCard


class Ended(Protocol):
    """How a worker's main process ended."""

    def in_words(self) -> str:
        """To follow "its worker": "was killed by SIGKILL"."""


class Progress(Protocol):
    """How far a load is."""

    def in_words(self) -> str:
        """`weights 40%`."""


class Worker(Protocol):
    """What the switchboard asks of a worker; `local_llm.worker.worker.Worker` is the real one."""

    @property
    def worker_id(self) -> str: ...
    @property
    def card(self) -> ModelCard: ...
    @property
    def base_url(self) -> str: ...
    @property
    def key(self) -> str: ...

    @property
    def progress(self) -> Progress: ...
    @property
    def nanny_pid(self) -> int | None: ...

    async def start(self) -> None:
        """Returns when it is ready.

        Raises:
            LoadFailed: it did not become ready.
        """

    async def wait_ended(self) -> Ended:
        """Returns when its main process has ended."""

    async def stop(self, *, reason: str) -> None:
        """Returns when nothing of it is left."""

    async def memory_back(self, wanted_bytes: Callable[[], int | None]) -> None:
        """Returns, once it is stopped, when its device memory is back or a deadline has passed.

        Args:
            wanted_bytes: what the neediest model that is waited for needs at this moment; None if none is.
        """

    def last_lines(self, count: int = 20) -> list[str]:
        """Of its log."""
