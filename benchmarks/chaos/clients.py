"""Sends what was decided, behaves as decided, and notes what came back."""

from __future__ import annotations

import math
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anyio

from benchmarks.chaos.asking import Ask, Manner

SLOW_READ_BYTES = 8192
LONGEST_SLOW_SECONDS = 8.0


@dataclass(slots=True)
class Seen:
    """What became of one request, as its client saw it.

    Attributes:
        began: monotonic seconds.
        answered: when the header came; infinite if none did.
        ended: when all was over.
        status: of the answer; None if none came.
        headers: of the answer, in lower case.
        body: as far as it came.
        broke: how the connection failed; None if it did not.
        left: the client went away before the answer was complete.
        hung: it did so because no end was in sight.
    """

    began: float = field(default_factory=time.monotonic)
    answered: float = math.inf
    ended: float = math.inf
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    broke: str | None = None
    left: bool = False
    hung: bool = False


class Clients:
    """Connections to the server: kept alive for most, new and narrow ones for those who read slowly.

    Args:
        url: of the server.
        hung_seconds: a request that takes longer hangs; far beyond every deadline of the server.
    """

    def __init__(self, url: str, hung_seconds: float) -> None:
        self._url = url
        self._hung_seconds = hung_seconds
        timeout = aiohttp.ClientTimeout(total=None)
        self._usual = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        narrow = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_narrow_socket)
        self._narrow = aiohttp.ClientSession(connector=narrow, timeout=timeout, read_bufsize=4096)

    async def send(self, ask: Ask) -> Seen:
        """Does one request; never raises for what the server does."""
        seen = Seen()
        leaves = ask.manner in (Manner.LEAVES_EARLY, Manner.SHOUTS)
        patience = ask.seconds if leaves else self._hung_seconds
        with anyio.move_on_after(patience) as limit:
            try:
                if ask.manner is Manner.SHOUTS:
                    await self._shout(ask)
                else:
                    await self._exchange(ask, seen)
            except (aiohttp.ClientError, OSError) as error:
                seen.broke = f"{type(error).__name__}: {error}"
        seen.ended = time.monotonic()
        seen.left = seen.left or limit.cancelled_caught
        seen.hung = limit.cancelled_caught and not leaves
        return seen

    async def close(self) -> None:
        """Closes all connections."""
        await self._usual.close()
        await self._narrow.close()

    async def _exchange(self, ask: Ask, seen: Seen) -> None:
        session = self._narrow if ask.manner is Manner.SLOW else self._usual
        headers = {"x-request-id": ask.request_id, "x-echo": ask.request_id}
        if ask.body is not None:
            headers["content-type"] = "application/json"
        method = "GET" if ask.body is None else "POST"
        async with session.request(method, self._url + ask.path, data=ask.body, headers=headers) as response:
            seen.answered = time.monotonic()
            seen.status = response.status
            seen.headers = {name.lower(): value for name, value in response.headers.items()}
            await self._read(response, ask, seen)

    async def _read(self, response: aiohttp.ClientResponse, ask: Ask, seen: Seen) -> None:
        pieces = 0
        slow_until = seen.answered + LONGEST_SLOW_SECONDS
        async for piece in _pieces(response, narrow=ask.manner is Manner.SLOW):
            if ask.manner is Manner.LEAVES_READING and pieces >= ask.pieces:
                seen.left = True
                response.close()
                return
            seen.body += piece
            pieces += 1
            if ask.manner is Manner.SLOW and time.monotonic() < slow_until:
                await anyio.sleep(ask.seconds)

    async def _shout(self, ask: Ask) -> None:
        """Sends bytes and listens until the server has had enough, or the client."""
        host, _, port = self._url.removeprefix("http://").partition(":")
        async with await anyio.connect_tcp(host, int(port)) as stream:
            try:
                await stream.send(ask.body or b"")
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


async def _pieces(response: aiohttp.ClientResponse, *, narrow: bool) -> AsyncIterator[bytes]:
    while piece := await (response.content.read(SLOW_READ_BYTES) if narrow else response.content.readany()):
        yield piece


def _narrow_socket(address: Any) -> socket.socket:
    """One that takes little before the sender has to wait."""
    family, kind, protocol, *_ = address
    narrow = socket.socket(family, kind, protocol)
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return narrow


@asynccontextmanager
async def clients_of(url: str, hung_seconds: float) -> AsyncIterator[Clients]:
    """Clients whose connections are closed in the end."""
    clients = Clients(url, hung_seconds)
    try:
        yield clients
    finally:
        await clients.close()


def pause_seconds(chance: random.Random, mean: float) -> float:
    """Between two acts: mostly short, now and then long."""
    return min(chance.expovariate(1 / mean), 8 * mean)
