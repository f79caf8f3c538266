"""Connections to workers: HTTP/1.1 as a client speaks it, without a task or a queue between two sockets.

What the worker sends is handed to a receiver from within the event loop's callback: for each piece that is
one parse and one write. Through aiohttp, whose reader wakes a task for each, a request took 100 µs more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from typing import Protocol, cast
from weakref import WeakValueDictionary

import anyio
import httptools

CONNECT_SECONDS = 10.0
"""A worker that is ready accepts on the loopback at once; one that is stopped or wedged never does."""

IDLE_CONNECTION_SECONDS = 4.0
"""Less than any worker keeps an idle connection (uvicorn: 5 s), so that none is used as it closes."""

Headers = list[tuple[bytes, bytes]]


class NotConnected(Exception):
    """Nobody listens there; nothing was sent."""


class ConnectionBroken(Exception):
    """The connection ended, or brought what is no HTTP, before the answer was whole."""


class Receiver(Protocol):
    """Who takes an answer. The methods are called from the event loop, in this order."""

    def begin(self, status: int, headers: Headers) -> None:
        """Takes the head, names as the worker wrote them."""

    def take(self, piece: bytes) -> None:
        """Takes a piece of the body, which is not empty."""

    def end(self) -> None:
        """Hears that the body is whole."""

    def blocks(self, connection: Connection) -> bool:
        """Whether nothing more should be read now; `connection.resume` is then called when it may be."""


@dataclass(eq=False)
class Pool:
    """Of one worker; kept alive by its connections.

    Attributes:
        idle: those that wait for a request; the one used last comes last.
    """

    idle: list[Connection] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection to a worker, for one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._whole: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._status = 0
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._head_is_new = self._ends_with_connection = self._complete = self._stays = False
        self.idle_since = 0.0

    def send(self, head: bytes, body: bytes) -> None:
        """Sends a request; `receive` must follow."""
        self._transport.writelines((head, body))

    async def receive(self, receiver: Receiver, rest: AsyncIterable[bytes] | None = None) -> None:
        """Returns when the receiver has the whole answer.

        Args:
            receiver: of the answer.
            rest: of the request's body, sent as the worker takes it; it may answer before it has all.

        Raises:
            ConnectionBroken: it has not, and will not.
        """
        loop = asyncio.get_running_loop()
        self._receiver, self._complete = receiver, False
        self._whole = loop.create_future()
        if self._transport.is_closing():
            self._fail(ConnectionBroken("it was closed"))
        is_done = False
        sending = None if rest is None else loop.create_task(self._send(rest))
        try:
            await self._whole
            is_done = sending is None or sending.done()
        finally:
            self._receiver = self._whole = None
            if sending is not None:
                sending.cancel()
            # Not by `_complete`: an answer may come whole in the very moment in which its client leaves,
            # and is then still in here.
            if is_done and self._may_be_kept():
                self.idle_since = loop.time()
                self._pool.idle.append(self)
            else:
                self._transport.abort()
            if sending is not None:
                await asyncio.wait([sending])  # what it reads from must not be closed meanwhile

    async def _send(self, rest: AsyncIterable[bytes]) -> None:
        try:
            async for piece in rest:
                if self._drained is not None:
                    await self._drained
                if self._transport.is_closing():
                    return
                self._transport.write(piece)
        except Exception as error:  # noqa: BLE001 - else the worker would wait for the rest for ever
            self._fail(ConnectionBroken(f"the rest of the request cannot be read: {error}"))

    def is_usable(self, now: float) -> bool:
        """Whether the worker surely still keeps it."""
        return not self._transport.is_closing() and now - self.idle_since < IDLE_CONNECTION_SECONDS

    def resume(self) -> None:
        """Reads on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Hangs up."""
        self._transport.abort()

    def _may_be_kept(self) -> bool:
        # A worker may answer before it has read the whole request.
        return (
            self._stays and not self._transport.is_closing() and self._transport.get_write_buffer_size() == 0
        )

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but the name

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self in self._pool.idle:
            self._pool.idle.remove(self)
        self.resume_writing()
        if exc is None and self._ends_with_connection and not self._complete:
            self._complete = True
            self._hand_on()
        self._fail(ConnectionBroken("it was closed" if exc is None else f"{type(exc).__name__}: {exc}"))

    def pause_writing(self) -> None:
        """The worker is slow to take what is sent."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It has taken most of it, or is gone."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Some of an answer has come."""
        if self._receiver is None:  # nobody asked
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ConnectionBroken(f"its answer is no HTTP: {error}"))
            return
        self._hand_on()

    def _hand_on(self) -> None:
        receiver, whole = self._receiver, self._whole
        if receiver is None or whole is None or whole.done():
            return
        if self._head_is_new:
            self._head_is_new = False
            receiver.begin(self._status, self._headers)
        if self._pieces:
            receiver.take(b"".join(self._pieces))
            self._pieces.clear()
        if self._complete:
            receiver.end()
            whole.set_result(None)
        elif receiver.blocks(self):
            self._transport.pause_reading()

    def _fail(self, error: ConnectionBroken) -> None:
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(error)

    # Called by the parser

    def on_message_begin(self) -> None:
        """A head begins."""
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the head."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._status = self._parser.get_status_code()
        self._head_is_new = self._status >= 200  # 1xx: news of an answer to come
        names = {name.lower() for name, _ in self._headers}
        self._ends_with_connection = self._head_is_new and names.isdisjoint(
            (b"content-length", b"transfer-encoding")
        )

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without what frames it."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._complete = self._status >= 200
        self._stays = self._parser.should_keep_alive()  # asked later, it has forgotten


class Connections:
    """Those to all workers, kept and used again."""

    def __init__(self) -> None:
        self._pools: WeakValueDictionary[str, Pool] = WeakValueDictionary()

    async def to(self, base_url: str) -> Connection:
        """An idle connection to a worker, or a new one.

        Raises:
            NotConnected: it does not accept any.
        """
        pool = self._pools.get(base_url)
        if pool is not None:
            now = asyncio.get_running_loop().time()
            while pool.idle:
                connection = pool.idle.pop()
                if connection.is_usable(now):
                    return connection
                connection.close()
        return await self._connect(base_url)

    def close(self) -> None:
        """Hangs up where nobody is asking."""
        for pool in list(self._pools.values()):
            for connection in pool.idle:
                connection.close()

    async def _connect(self, base_url: str) -> Connection:
        pool = self._pools.setdefault(base_url, Pool())
        host, _, port = base_url.rpartition("/")[2].rpartition(":")
        loop = asyncio.get_running_loop()
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                _, connection = await loop.create_connection(lambda: Connection(pool), host, int(port))
        except (OSError, TimeoutError) as error:
            raise NotConnected(str(error) or f"no connection within {CONNECT_SECONDS:g} s") from error
        return connection
