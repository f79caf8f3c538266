"""What is particular to each engine: which modules a worker will need, and what a fork must set right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from local_llm_worker.template.pooling_engine import PoolingEngine
from local_llm_worker.template.vllm_engine import VllmEngine


class Engine(Protocol):
    """An engine, as the template sees it."""

    def library_environment(self) -> dict[str, str]:
        """What a cold worker's processes are started with, beyond what the supervisor sets."""

    def preload(self) -> Iterator[str]:
        """Imports everything; yields the names of modules that are not there.

        Raises:
            Unfit: no template can be made of it.
        """

    def set_right(self) -> None:
        """In the forked worker, before its program runs."""


ENGINES: dict[str, Callable[[Sequence[str]], Engine]] = {"vllm": VllmEngine, "transformers": PoolingEngine}
