"""What reaches the application of the bytes that come in, piece by piece."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from local_llm.http1 import MAX_HEAD_BYTES, Http1Protocol


class Wire(asyncio.Transport):
    """The transport of a connection; keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection to an application that answers with nothing and keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        config = Config(
            self._app, interface="asgi3", ws="none", lifespan="off", log_config=None, proxy_headers=False
        )
        config.load()
        self.state = ServerState()
        self.wire = Wire()
        self.protocol = Http1Protocol(config, self.state, {})
        self.protocol.connection_made(self.wire)

    async def _app(self, _: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def come(self, *pieces: bytes) -> None:
        """Lets `pieces` come in, and the application work."""
        for piece in pieces:
            self.protocol.data_received(piece)
        if self.state.tasks:
            await asyncio.wait(self.state.tasks)

    def end(self) -> None:
        """The client leaves."""
        self.protocol.connection_lost(None)


@pytest.fixture
async def connection() -> Any:
    connection = Connection()
    yield connection
    connection.end()


def head(length: int, *lines: bytes) -> bytes:
    """Of a POST with a body of so many bytes."""
    return b"\r\n".join([b"POST / HTTP/1.1", b"Content-Length: %d" % length, *lines, b"", b""])


OFFER = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")


async def test_an_offer_to_upgrade_is_passed_over_each_time(connection: Connection) -> None:
    """The body is right behind the header, or comes after it."""
    await connection.come(head(4, *OFFER) + b"body")
    await connection.come(head(4, *OFFER), b"bo", b"dy")
    assert connection.bodies == [b"body", b"body"]


async def test_a_body_that_looks_like_an_offer_stays_as_it_is(connection: Connection) -> None:
    """Though it begins a piece of its own; longer by two bytes, it would reach into the next request."""
    body = b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"
    await connection.come(head(len(body)), body)
    await connection.come(head(4) + b"next")
    assert connection.bodies == [body, b"next"]


@pytest.mark.parametrize(
    "piece", [b"X-A: " + b"a" * 995 + b"\r\n", b"a" * 1000], ids=["many headers", "one long header"]
)
async def test_headers_have_an_end(connection: Connection, piece: bytes) -> None:
    """They are counted, for the parser would collect them for ever; the answer says why."""
    await connection.come(b"POST / HTTP/1.1\r\nX-B: ")
    count = 0
    while not connection.wire.closed and count < 1000:
        await connection.come(piece)
        count += 1
    assert MAX_HEAD_BYTES // 1000 <= count <= MAX_HEAD_BYTES // 1000 + 1
    answer, _, body = connection.wire.written.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["code"] == "headers_too_large"
    assert connection.bodies == []


async def test_headers_are_counted_anew_for_each_request(connection: Connection) -> None:
    """A connection that lives long has many of them; a large body counts for nothing."""
    for _ in range(100):
        await connection.come(head(2000, b"X-A: " + b"a" * 1000), b"y" * 2000)
    assert len(connection.bodies) == 100
    assert not connection.wire.closed


async def test_what_is_no_http_is_told_in_openais_shape(connection: Connection) -> None:
    """With a status, and the connection closes."""
    await connection.come(b"\x16\x03\x01 a TLS greeting\r\n\r\n")
    answer, _, body = connection.wire.written.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert connection.wire.closed


async def test_nothing_is_told_in_the_midst_of_another_answer() -> None:
    """It would be taken for a part of it; the connection closes."""
    connection = Connection()
    connection.protocol.data_received(head(4) + b"bo")  # a request whose answer is to come
    connection.protocol.data_received(b"dy" + b"\x00no HTTP\r\n\r\n")
    assert connection.wire.closed
    assert connection.wire.written == b""
    connection.end()
    await asyncio.wait(connection.state.tasks)
