"""Comments for a waiting stream."""

from __future__ import annotations

import anyio
from starlette.types import Message

from local_llm.gateway.answer import Answer
from local_llm.gateway.feedback import Feedback


async def test_a_second_wait_goes_on_in_the_same_stream() -> None:
    """A request that is tried on a fresh worker waits twice; its answer begins once."""
    messages: list[str] = []
    commented = anyio.Event()

    async def send(message: Message) -> None:
        messages.append(message["type"])
        if message["type"] == "http.response.body":
            commented.set()

    feedback = Feedback(Answer(send, "id"), lambda: "its turn", after_seconds=0.01)
    for _ in range(2):
        feedback.begin()
        await commented.wait()
        await feedback.end()
        commented = anyio.Event()
    assert messages == ["http.response.start", "http.response.body", "http.response.body"]
