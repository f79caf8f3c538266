"""The data path: one request to a worker, its answer back, byte for byte, as it comes."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec
from starlette.types import Scope

from local_llm.errors import UpstreamDied, WorkerRefused
from local_llm.gateway.answer import Answer
from local_llm.gateway.request import HeldBody
from local_llm.gateway.upstream import Connection, ConnectionBroken, Connections, Headers, NotConnected
from local_llm.switchboard.lease import Lease

LAST_WORDS_SECONDS = 2.0
"""From a broken connection to the news that its process has ended."""

LARGEST_ERROR_BYTES = 1 << 16

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, 7.6.1: for one connection only."""

NOT_FOR_WORKERS = HOP_BY_HOP | {b"authorization", b"x-api-key", b"host", b"content-length", b"expect"}
"""The client's key is ours to check and stays here; the rest is said anew for the next hop."""

NOT_FOR_CLIENTS = HOP_BY_HOP | {b"date"}
"""Every answer has uvicorn's own Date."""


class NothingSent(UpstreamDied):
    """The worker could not be reached at all: the request may be tried on another."""


class DataPath:
    """Takes requests to workers. An asynchronous context."""

    def __init__(self) -> None:
        self._connections = Connections()

    async def __aenter__(self) -> DataPath:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connections.close()

    async def forward(self, scope: Scope, held: HeldBody, lease: Lease, answer: Answer) -> None:
        """Sends a request to the lease's worker, and what it answers to the client.

        No deadline for the whole: an answer may take as long as its tokens. A worker that hangs is the
        worker room's to notice; its end breaks the connection.

        Raises:
            NothingSent: the worker was not there.
            UpstreamDied: it went away before its answer was whole.
            WorkerRefused: it answered with an error, and the client's stream had begun already.
        """
        relay = _Relay(answer, held)
        try:
            connection = await self._connections.to(lease.worker.base_url)
            connection.send(_request_head(scope, held.size_bytes, lease), held.content)
            await connection.receive(relay, held.rest)
        except NotConnected as error:
            raise NothingSent(await _what_happened(lease, error)) from error
        except ConnectionBroken as error:
            raise UpstreamDied(await _what_happened(lease, error)) from error
        if relay.refusal is not None:
            raise _refusal(relay.refusal, relay.refusal_body)


class _Relay:
    """Hands a worker's answer on to the client.

    Attributes:
        refusal: the worker's status, if it is no good one and the client's stream had begun already.
        refusal_body: what it said then.
    """

    __slots__ = ("_answer", "_held", "refusal", "refusal_body")

    def __init__(self, answer: Answer, held: HeldBody) -> None:
        self._answer = answer
        self._held = held
        self.refusal: int | None = None
        self.refusal_body = b""

    def begin(self, status: int, headers: Headers) -> None:
        """From `Receiver`."""
        self._held.answered()
        if self._answer.status is None:
            self._answer.begin(status, _response_headers(headers))
        elif status != 200:  # the stream has begun with comments, and goes on as events
            self.refusal = status

    def take(self, piece: bytes) -> None:
        """From `Receiver`."""
        if self.refusal is None:
            self._answer.pass_on(piece)
        elif len(self.refusal_body) < LARGEST_ERROR_BYTES:
            self.refusal_body += piece

    def end(self) -> None:
        """From `Receiver`."""
        if self.refusal is None:
            self._answer.end()

    def blocks(self, connection: Connection) -> bool:
        """From `Receiver`."""
        if not self._answer.blocked:
            return False
        self._answer.when_writable(connection.resume)
        return True


def _refusal(status: int, content: bytes) -> WorkerRefused:
    try:
        error = msgspec.json.decode(content)["error"]
        return WorkerRefused(str(error["message"]), error=error)
    except (msgspec.DecodeError, KeyError, TypeError):
        shown = content.decode(errors="replace")
        return WorkerRefused(f"The worker answered with status {status}: {shown}")


async def _what_happened(lease: Lease, error: Exception) -> str:
    """In words; waits a moment for the worker's end, which the broken connection is the first sign of."""
    worker = lease.worker
    with anyio.move_on_after(LAST_WORDS_SECONDS):
        ended = await worker.wait_ended()
        return f"The worker of {worker.card.id!r} left its answer incomplete: it {ended.in_words()}."
    return f"The worker of {worker.card.id!r} broke the connection off ({error})."


def _request_head(scope: Scope, body_bytes: int, lease: Lease) -> bytes:
    headers = scope["headers"]
    dropped = _with_those_named(NOT_FOR_WORKERS, headers)
    query = scope["query_string"]
    target = scope["path"].encode() + (b"?" + query if query else b"")
    lines = [b"%b %b HTTP/1.1\r\n" % (scope["method"].encode(), target)]
    for name, value in headers:
        if name not in dropped:
            lines += (name, b": ", value, b"\r\n")
    host = lease.worker.base_url.rpartition("/")[2].encode()
    own = b"host: %b\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
    lines.append(own % (host, lease.worker.key.encode(), body_bytes))
    return b"".join(lines)


def _response_headers(headers: Headers) -> Headers:
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _with_those_named(NOT_FOR_CLIENTS, lowered)
    return [(name, value) for name, value in lowered if name not in dropped]


def _with_those_named(dropped: frozenset[bytes], headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Adds the headers that `Connection` names: they are for one hop, too."""
    for name, value in headers:
        if name == b"connection":
            dropped = dropped.union(each.strip().lower() for each in value.split(b","))
    return dropped
