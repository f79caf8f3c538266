"""What a stream hears while it waits: comment lines, which every SSE client passes over.

Without them a front proxy, or the client itself, takes the silence of a load for a dead server. Comments
before the first event were tried with the openai, LangChain and Anthropic clients: harmless.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from local_llm.gateway.answer import EVENT_STREAM, Answer

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0

HEADERS = ((b"content-type", EVENT_STREAM + b"; charset=utf-8"), (b"cache-control", b"no-cache"))


class Feedback:
    """Begins an answer with comments if it has to wait; silent for those who need not.

    Args:
        answer: not begun yet. Once a comment went out its status is 200, and whatever goes wrong later is
            told by an error event.
        describe: what is being waited for, in a few words; asked each time anew.
        after_seconds: of waiting until the first comment; 0 means never.
    """

    def __init__(self, answer: Answer, describe: Callable[[], str], after_seconds: float) -> None:
        self._answer = answer
        self._describe = describe
        self._after_seconds = after_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The wait begins."""
        if self._after_seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(self._after_seconds, self._start)

    async def end(self) -> None:
        """The wait is over; when this returns, the answer is the caller's alone. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled() and (mistake := self._task.exception()) is not None:
                log.error("feedback to a waiting stream failed: %r", mistake)

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._speak())

    async def _speak(self) -> None:
        if self._answer.status is None:  # else the first worker died, and this is the wait for another
            self._answer.begin(200, HEADERS)
        while True:
            words = " ".join(self._describe().split())
            await self._answer.writable()
            self._answer.pass_on(f": {words}\n\n".encode())
            await asyncio.sleep(EVERY_SECONDS)
