"""Clients that cost next to nothing: what they take of the cores, the server under test has not."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADERS_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Refused(Exception):
    """The server answered something else than 200; the message holds it."""


class Client:
    """One connection that is kept open, and one request, asked again and again.

    Args:
        reader: of the connection.
        writer: of the connection.
        request: its bytes, headers and all.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter, request: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._request = request

    @classmethod
    async def connect(cls, port: int, path: str, model: str, text: str) -> Client:
        """Connects to a server on the loopback; asks for base64, as OpenAI's Python client does."""
        body = json.dumps({"model": model, "input": text, "encoding_format": "base64"}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, head.encode() + body)

    async def ask(self) -> bytes:
        """Asks once; returns the answer's body.

        Raises:
            Refused: the status is not 200.
        """
        self._writer.write(self._request)
        head = await self._reader.readuntil(_HEADERS_END)
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        if not head.startswith(b"HTTP/1.1 200 ") or not body:
            raise Refused(f"{head[:200]!r} {body[:500]!r}")
        return body

    async def ask_times(self, times: int) -> None:
        """Asks again as soon as it has its answer."""
        for _ in range(times):
            await self.ask()

    async def close(self) -> None:
        """Ends the connection."""
        self._writer.close()
        await self._writer.wait_closed()


def vectors(bodies: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """The one vector of each answer, as rows."""
    rows: list[Any] = [json.loads(each)["data"][0]["embedding"] for each in bodies]
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
