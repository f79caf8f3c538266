"""Comments for a waiting stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import anyio

from local_llm.gateway.answer import Answer
from local_llm.gateway.feedback import Feedback
from local_llm.http1 import Exchange


class Kept:
    """An exchange that keeps what was written, and a client that takes everything at once."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written = anyio.Event()

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.calls.append("begin")

    def write(self, piece: bytes) -> None:
        self.calls.append("write")
        self.written.set()

    async def writable(self) -> None: ...


async def test_a_second_wait_goes_on_in_the_same_stream() -> None:
    """A request that is tried on a fresh worker waits twice; its answer begins once."""
    exchange = Kept()
    feedback = Feedback(Answer(cast("Exchange", exchange), "id"), lambda: "its turn", after_seconds=0.01)
    for _ in range(2):
        feedback.begin()
        await exchange.written.wait()
        await feedback.end()
        exchange.written = anyio.Event()
    assert exchange.calls == ["begin", "write", "write"]
