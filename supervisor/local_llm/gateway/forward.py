"""The data path: one request to a worker, its answer back, byte for byte, as it comes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import aiohttp
import anyio
import msgspec
from multidict import CIMultiDict
from starlette.types import Scope
from yarl import URL

from local_llm.errors import UpstreamDied, WorkerRefused
from local_llm.gateway.answer import Answer
from local_llm.gateway.request import HeldBody
from local_llm.switchboard.switchboard import Lease

CONNECT_SECONDS = 10.0
"""A worker that is ready accepts on the loopback at once; one that is stopped or wedged never does."""

IDLE_CONNECTION_SECONDS = 4.0
"""Less than any worker keeps an idle connection (uvicorn: 5 s), so that none is used as it closes."""

LAST_WORDS_SECONDS = 2.0
"""From a broken connection to the news that its process has ended."""

LARGE_BODY_BYTES = 1 << 20

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
    """Connections to workers, kept and used again. An asynchronous context."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            # No limit on the whole: an answer may take as long as its tokens. A worker that hangs is the
            # worker room's to notice; its end breaks the connection.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    async def __aenter__(self) -> DataPath:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def forward(self, scope: Scope, held: HeldBody, lease: Lease, answer: Answer) -> None:
        """Sends a request to the lease's worker, and what it answers to the client.

        Raises:
            NothingSent: the worker was not there.
            UpstreamDied: it went away before its answer was whole.
            WorkerRefused: it answered with an error, and the client's stream had begun already.
        """
        try:
            async with self._session.request(
                scope["method"],
                _url(scope, lease),
                data=_payload(held.content),
                headers=_request_headers(scope["headers"], lease.worker.key),
                allow_redirects=False,
            ) as response:
                held.let_go()
                if answer.status is None:
                    await answer.begin(response.status, _response_headers(response.raw_headers))
                elif response.status != 200:  # the stream has begun with comments, and goes on as events
                    raise await _refusal(response)
                while chunk := await response.content.readany():
                    await answer.pass_on(chunk)
                await answer.end()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NothingSent(await _what_happened(lease, error)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise UpstreamDied(await _what_happened(lease, error)) from error


async def _refusal(response: aiohttp.ClientResponse) -> WorkerRefused:
    content = b""
    while len(content) < LARGEST_ERROR_BYTES and (chunk := await response.content.readany()):
        content += chunk
    try:
        error = msgspec.json.decode(content)["error"]
        return WorkerRefused(str(error["message"]), error=error)
    except (msgspec.DecodeError, KeyError, TypeError):
        shown = content.decode(errors="replace")
        return WorkerRefused(f"The worker answered with status {response.status}: {shown}")


async def _what_happened(lease: Lease, error: Exception) -> str:
    """In words; waits a moment for the worker's end, which the broken connection is the first sign of."""
    worker = lease.worker
    with anyio.move_on_after(LAST_WORDS_SECONDS):
        ended = await worker.wait_ended()
        return f"The worker of {worker.card.id!r} left its answer incomplete: it {ended.in_words()}."
    return f"The worker of {worker.card.id!r} broke the connection off ({type(error).__name__}: {error})."


def _url(scope: Scope, lease: Lease) -> URL:
    query = scope["query_string"]
    url = lease.worker.base_url + str(scope["path"])
    # `encoded`: as it is. Left to itself, yarl writes the query anew (%2F becomes /).
    return URL(f"{url}?{query.decode('latin-1')}" if query else url, encoded=True)


def _payload(body: bytes) -> bytes | io.BytesIO:
    # aiohttp writes bytes in one go, and warns of it above a megabyte; a file is written in pieces.
    return io.BytesIO(body) if len(body) >= LARGE_BODY_BYTES else body


def _request_headers(headers: Sequence[tuple[bytes, bytes]], key: str) -> CIMultiDict[str]:
    dropped = NOT_FOR_WORKERS | _named_by_connection(headers)
    passed = [(name.decode("latin-1"), _text(value)) for name, value in headers if name not in dropped]
    return CIMultiDict([*passed, ("authorization", f"Bearer {key}")])


def _text(value: bytes) -> str:
    """Of a header's value. aiohttp writes all text as UTF-8, so that is what it must be read as."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _response_headers(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = NOT_FOR_CLIENTS | _named_by_connection(lowered)
    return [(name, value) for name, value in lowered if name not in dropped]


def _named_by_connection(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(
        each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")
    )
