"""What the supervisor holds in memory while one side is slow."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.proxy.programs import CHAT, MODEL, Contender, body

CLIENTS = 8
CHUNK_BYTES = 32_768
CHUNKS = 10_000
"""Of each client's answer: 320 MB."""

READ_BYTES_PER_SECOND = 1_000_000
READING_SECONDS = 5.0
UPLOAD_BYTES = 30_000_000
WORKER_READS_PER_MS = 6_000
SAMPLE_SECONDS = 0.02


@dataclass
class Growth:
    """Of a process's memory over what it was, in MB; `most` is known at the end."""

    most: float = 0.0


def slow_clients(contender: Contender) -> tuple[float, float]:
    """Several clients that read a long answer slowly.

    Returns:
        By how many MB the contender grew at most, and how many MB the answers have that the worker would
        give as fast as they are taken.
    """
    headers = (f"x-chunks: {CHUNKS}", f"x-chunk-bytes: {CHUNK_BYTES}")
    with ExitStack() as stack, _growth(contender) as growth:
        clients = [
            stack.enter_context(_asking(contender, body(stream=True), headers)) for _ in range(CLIENTS)
        ]
        ends = time.monotonic() + READING_SECONDS
        while time.monotonic() < ends:
            for client in clients:
                client.recv(READ_BYTES_PER_SECOND // 50)
            time.sleep(0.02)
    return growth.most, CLIENTS * CHUNKS * CHUNK_BYTES / 1e6


def slow_worker(contender: Contender) -> tuple[float, float]:
    """One large upload to a worker that reads slowly.

    Returns:
        By how many MB the contender grew at most, and how large the upload is.

    Raises:
        ConnectionError: it was not answered.
    """
    padding = "x" * UPLOAD_BYTES
    upload = json.dumps({"model": MODEL, "padding": padding}).encode()
    with _growth(contender) as growth:
        with _asking(contender, upload, (f"x-read-per-ms: {WORKER_READS_PER_MS}",)) as client:
            answer = client.recv(100)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"{contender.name} answered the upload with {answer!r}")
    return growth.most, len(upload) / 1e6


@contextmanager
def _asking(contender: Contender, content: bytes, headers: tuple[str, ...]) -> Iterator[socket.socket]:
    lines = [f"POST {CHAT} HTTP/1.1", "Host: bench", f"Content-Length: {len(content)}", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", contender.port), timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall("\r\n".join(lines).encode() + content)
        yield client


@contextmanager
def _growth(contender: Contender) -> Iterator[Growth]:
    growth, over = Growth(), threading.Event()
    before = contender.rss_mb()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            growth.most = max(growth.most, contender.rss_mb() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        over.set()
        watcher.join()
