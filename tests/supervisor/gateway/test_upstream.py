"""Connections to a worker: what an answer may look like, and which connections are used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from local_llm.gateway.upstream import Connection, ConnectionBroken, Connections, Headers, NotConnected, Pool
from local_llm.worker.launch import free_port

HEAD, BODY = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", b"hi"
HANG_UP = b"<hang up>"
SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"


class Taker:
    """A receiver that keeps what it takes, and blocks when told."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.body = b""
        self.pieces: list[bytes] = []
        self.ended = False
        self.blocked: asyncio.Future[Connection] | None = None

    def begin(self, status: int, headers: Headers) -> None:
        assert self.status is None
        self.status = status

    def take(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.body += piece

    def end(self) -> None:
        self.ended = True

    def blocks(self, connection: Connection) -> bool:
        if self.blocked is not None and not self.blocked.done():
            self.blocked.set_result(connection)
            return True
        return False


class Worker:
    """Answers each request with the next of `answers`; hangs up behind one that ends with HANG_UP."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readexactly(len(HEAD + BODY)) == HEAD + BODY:
                answer = self.answers.pop(0)
                writer.write(answer.removesuffix(HANG_UP))
                await writer.drain()
                if answer.endswith(HANG_UP):
                    break
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[Worker, Connections, str]]:
    worker = Worker(answers)
    server = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    connections = Connections()
    try:
        port = server.sockets[0].getsockname()[1]
        yield worker, connections, f"http://127.0.0.1:{port}"
    finally:
        connections.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*filter(None, worker.serving))


async def ask(connections: Connections, url: str) -> Taker:
    taker = Taker()
    connection = await connections.to(url)
    connection.send(HEAD, BODY)
    await connection.receive(taker)
    return taker


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nye\r\n1;x=y\r\ns\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (SIZED, 200, b"yes"),
        (CHUNKED, 200, b"yes"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED, 200, b"yes"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", 500, b""),
    ],
    ids=["sized", "chunked", "early hints", "no content", "empty"],
)
async def test_an_answer_is_taken_whole_and_the_connection_used_again(
    answer: bytes, status: int, body: bytes
) -> None:
    """However it is framed."""
    async with serving(answer, SIZED) as (worker, connections, url):
        taker = await ask(connections, url)
        assert (taker.status, taker.body, taker.ended) == (status, body, True)
        assert (await ask(connections, url)).body == b"yes"
        assert worker.connections == 1


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nyes", SIZED],
    ids=["announced", "silently"],
)
async def test_a_connection_that_closes_is_not_used_again(answer: bytes) -> None:
    """The next request gets a new one."""
    async with serving(answer + HANG_UP, SIZED) as (worker, connections, url):
        first = await connections.to(url)
        gone = asyncio.get_running_loop().create_future()
        lost = first.connection_lost
        first.connection_lost = lambda error: (lost(error), gone.set_result(None))  # type: ignore[method-assign, func-returns-value]
        first.send(HEAD, BODY)
        await first.receive(Taker())
        await gone
        assert (await ask(connections, url)).body == b"yes"
        assert worker.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """It is whole then."""
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nyes" + HANG_UP) as (_, connections, url):
        taker = await ask(connections, url)
    assert (taker.body, taker.ended) == (b"yes", True)


@pytest.mark.parametrize(
    "answer",
    [b"", SIZED[:-1], CHUNKED[:-1], b"\x00no HTTP\r\n\r\n", b"HTTP/1.1 101 Other\r\nupgrade: h2c\r\n\r\n"],
    ids=["nothing", "too short", "chunks without an end", "no HTTP", "another protocol"],
)
async def test_half_an_answer_is_an_error(answer: bytes) -> None:
    """The receiver does not hear of an end."""
    async with serving(answer + HANG_UP) as (_, connections, url):
        connection, taker = await connections.to(url), Taker()
        connection.send(HEAD, BODY)
        with pytest.raises(ConnectionBroken):
            await connection.receive(taker)
    assert not taker.ended


async def test_nobody_listens() -> None:
    """Then nothing was sent, and another worker may be asked."""
    with pytest.raises(NotConnected):
        await Connections().to(f"http://127.0.0.1:{free_port()}")


async def test_an_answer_is_not_read_while_its_receiver_blocks() -> None:
    """What comes meanwhile stays in the sockets; what has come is not lost."""
    size = 32 << 20
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size
    async with serving(answer) as (_, connections, url):
        connection, taker = await connections.to(url), Taker()
        taker.blocked = asyncio.get_running_loop().create_future()
        connection.send(HEAD, BODY)
        receiving = asyncio.create_task(connection.receive(taker))
        blocked = await taker.blocked
        taken = len(taker.body)
        for _ in range(100):  # turns of the loop, each of which would read more
            await asyncio.sleep(0)
        assert len(taker.body) == taken < size
        blocked.resume()
        await receiving
    assert len(taker.body) == size


class Wire(asyncio.Transport):
    """A transport that takes everything, and knows whether it was broken off."""

    aborted = False

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0


async def test_an_answer_that_comes_as_its_client_leaves_is_nobody_elses() -> None:
    """It came whole, but was handed to no one: the next request on this connection would have got it."""
    pool, wire = Pool(), Wire()
    connection, taker = Connection(pool), Taker()
    connection.connection_made(wire)
    connection.send(HEAD, BODY)
    receiving = asyncio.create_task(connection.receive(taker))
    await asyncio.sleep(0)
    receiving.cancel()
    connection.data_received(SIZED)
    await asyncio.wait([receiving])
    assert receiving.cancelled()
    assert wire.aborted
    assert pool.idle == []


PIECE = b"x" * 65_536


class Rest:
    """A request's body in so many pieces, counted as they are taken."""

    def __init__(self, count: int, error: OSError | None = None) -> None:
        self.count, self.taken, self.error = count, 0, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            self.taken += 1
            yield PIECE
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def taking(read_bytes: int, answer: bytes) -> AsyncIterator[tuple[Connections, str, asyncio.Event]]:
    """A worker that reads so much of a request, answers when told, and keeps the connection."""
    may_answer, done = asyncio.Event(), asyncio.Event()
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(HEAD) + read_bytes)
            await may_answer.wait()
            writer.write(answer)
            await writer.drain()
            await done.wait()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    connections = Connections()
    try:
        yield connections, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", may_answer
    finally:
        done.set()
        may_answer.set()
        connections.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*filter(None, tasks))


async def test_the_rest_of_a_request_follows() -> None:
    """All of it, and the connection is used again."""
    rest = Rest(100)
    async with taking(100 * len(PIECE), SIZED) as (connections, url, may_answer):
        may_answer.set()
        connection = await connections.to(url)
        connection.send(HEAD, b"")
        taker = Taker()
        await connection.receive(taker, rest)
        assert (taker.body, rest.taken) == (b"yes", 100)
        assert await connections.to(url) is connection
        connection.close()


async def test_a_worker_that_does_not_read_is_not_sent_more() -> None:
    """What is read of the rest is bounded by what the sockets hold; the answer comes through nevertheless."""
    rest = Rest(10_000)
    async with taking(0, SIZED) as (connections, url, may_answer):
        connection = await connections.to(url)
        connection.send(HEAD, b"")
        taker = Taker()
        receiving = asyncio.ensure_future(connection.receive(taker, rest))
        await _until_paused(connection)
        assert rest.taken < 1000
        may_answer.set()
        await receiving
        assert taker.body == b"yes"
        assert not connection.is_usable(0)


async def _until_paused(connection: Connection) -> None:
    while connection._drained is None:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_who_leaves_while_the_rest_is_sent_ends_it() -> None:
    """A cancelled request reads no more of its body, and hangs up."""
    rest = Rest(10_000)
    async with taking(0, SIZED) as (connections, url, _):
        connection = await connections.to(url)
        connection.send(HEAD, b"")
        receiving = asyncio.ensure_future(connection.receive(Taker(), rest))
        await _until_paused(connection)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert rest.taken < 1000
        assert not connection.is_usable(0)


@pytest.mark.parametrize("error", [OSError("disk on fire"), RuntimeError("disk on fire")])
async def test_a_rest_that_cannot_be_read(error: Exception) -> None:
    """It ends the request, and says why, whatever it is: the worker would wait for ever."""
    async with taking(10 * len(PIECE), SIZED) as (connections, url, _):
        connection = await connections.to(url)
        connection.send(HEAD, b"")
        with pytest.raises(ConnectionBroken, match="disk on fire"):
            await connection.receive(Taker(), Rest(2, error))
