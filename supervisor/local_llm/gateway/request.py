"""What a request asks for: its body, counted while it is read, and the model it names."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import anyio
import msgspec
from starlette.types import Receive, Scope

from local_llm.errors import BodyTooLarge, InvalidRequest, Overloaded, ServiceError

BODY_STALL_SECONDS = 60.0
"""A client that sends nothing of its body for so long has left without saying so."""

BODY_SECONDS = 600.0
"""For the whole of a body: 32 MiB at half a megabit a second."""


class ClientLeft(Exception):
    """The client closed its connection; there is nobody to tell."""


class RequestTimeout(ServiceError):
    """The body did not come."""

    status = 408
    code = "request_timeout"
    type = "invalid_request_error"


class Envelope(msgspec.Struct):
    """The fields that routing needs; all others are passed over unread."""

    model: Any = None
    stream: Any = None


_decoder = msgspec.json.Decoder(Envelope)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the envelope says.

    Attributes:
        model: the name as the client gave it.
        stream: whether the client asked for an event stream.
    """

    model: str
    stream: bool


def read_envelope(body: bytes) -> Asked:
    """Finds the model that a JSON body names, without building the rest of it.

    Raises:
        InvalidRequest: no JSON object, or no model in it.
    """
    try:
        envelope = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The body is not a JSON object: {error}") from None
    if not isinstance(envelope.model, str) or not envelope.model:
        raise InvalidRequest(
            "The body names no model: set `model` to one of those that GET /v1/models lists.", param="model"
        )
    return Asked(envelope.model, envelope.stream is True)


class BodyBudget:
    """Bounds the bodies held in memory for requests that wait, one by one and all together.

    Args:
        each_bytes: of one body.
        total_bytes: of all bodies together.
    """

    EACH_SETTING: ClassVar[str] = "max_body_bytes"
    TOTAL_SETTING: ClassVar[str] = "max_waiting_body_bytes"

    def __init__(self, *, each_bytes: int, total_bytes: int) -> None:
        self._each_bytes = each_bytes
        self._total_bytes = total_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """Held at this moment."""
        return self._held_bytes

    def holding(self) -> HeldBody:
        """A body's share, a context manager; given back when left."""
        return HeldBody(self)

    def check(self, declared: int) -> None:
        """Refuses by its Content-Length what would be refused while it is read.

        Nothing is counted yet: who declares much and sends nothing must not keep others out.

        Raises:
            BodyTooLarge: this body.
        """
        if declared > self._each_bytes:
            raise BodyTooLarge(
                f"The request body is larger than {self._each_bytes} bytes ({self.EACH_SETTING})."
            )

    def take(self, size: int, *, already: int) -> None:
        """Counts `size` more bytes of a body that has `already` so many.

        Raises:
            BodyTooLarge: this body.
            Overloaded: all together.
        """
        self.check(already + size)
        if self._held_bytes + size > self._total_bytes:
            raise Overloaded(
                f"The bodies of all waiting requests together would exceed {self._total_bytes} bytes "
                f"({self.TOTAL_SETTING}). Try again later.",
                retry_after_seconds=5,
            )
        self._held_bytes += size

    def give_back(self, size: int) -> None:
        """Uncounts bytes."""
        self._held_bytes -= size


class HeldBody:
    """One request's body while it waits for its worker; a context, at whose end it is let go.

    Attributes:
        content: what of it is in memory.
        rest: what follows, if anything is kept elsewhere.
    """

    WHOLE_SECONDS: ClassVar[float] = BODY_SECONDS

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._counted = 0
        self._pieces: list[bytes] = []
        self.content = b""
        self.rest: AsyncIterable[bytes] | None = None

    def __enter__(self) -> HeldBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    @property
    def size_bytes(self) -> int:
        """Of the whole body."""
        return self._counted

    def asked(self) -> Asked:
        """What the whole body asks for.

        Raises:
            InvalidRequest: nothing that can be understood.
        """
        return read_envelope(self.content)

    async def read(self, scope: Scope, receive: Receive, *, has_come: bool = False) -> None:
        """Reads the whole body from the client.

        Args:
            scope: of the request.
            receive: ASGI's.
            has_come: whether all of it is there already; then no deadline is needed, and two of them would
                take as long as the parsing.

        Raises:
            BodyTooLarge, Overloaded: as soon as that is certain.
            RequestTimeout: nothing came for BODY_STALL_SECONDS, or not all within WHOLE_SECONDS.
            ClientLeft: it closed the connection before the body was complete.
        """
        if has_come:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            self._take(len(message["body"]))
            self.content = message["body"]
            return
        await self._read_pieces(scope, receive)
        self.content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()

    async def _read_pieces(self, scope: Scope, receive: Receive) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit():
            self._budget.check(int(declared))
        try:
            with anyio.fail_after(self.WHOLE_SECONDS):
                async for piece in _pieces(receive):
                    self._take(len(piece))
                    await self._keep(piece)
        except TimeoutError:
            raise RequestTimeout(
                f"The request body did not come: nothing for {BODY_STALL_SECONDS:g} s, or not all of it "
                f"within {self.WHOLE_SECONDS:g} s."
            ) from None

    async def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def _take(self, size: int) -> None:
        self._budget.take(size, already=self._counted)
        self._counted += size

    def answered(self) -> None:
        """The worker has begun its answer: a second attempt will not be needed."""
        self.let_go()

    def let_go(self) -> None:
        """Forgets the body, once it is the worker's or nobody's."""
        self._budget.give_back(self._counted)
        self._counted = 0
        self.content = b""


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        with anyio.fail_after(BODY_STALL_SECONDS):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece
