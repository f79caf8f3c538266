"""The program: command line, phases of the start, and the end.

It prints a line on standard output as each phase begins, for the supervisor to read: ``phase: import``,
``phase: weights``, ``phase: ready``. The port takes connections from ``ready`` on, and not before.

Exit codes: 0 after SIGTERM or Ctrl-C, 1 after a failure (a traceback says which), 2 when the command line,
the environment or the model's folder will not do, 3 when the device was lost.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import uvicorn

from local_llm_worker.key_guard import KEY_VARIABLE, KeyGuard, worker_key
from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Folder, Kind
from local_llm_worker.pooling.threads import usable_cores
from local_llm_worker.pooling.token_ids import TokenIds

HOST = "127.0.0.1"

EXIT_REFUSED, EXIT_DEVICE_LOST = 2, 3

# The supervisor keeps connections open; closing an idle one would race with its next request.
_KEEP_ALIVE_SECONDS = 3600
# Python lets a thread that computes wait for as long as this while another runs. A model's forward pass
# comes back to Python some hundred times; at Python's 5 ms it stood still while requests were read.
_SWITCH_SECONDS = 0.0001
# For what runs at SIGTERM; the supervisor has a grace of its own, after which it kills.
_SHUTDOWN_SECONDS = 30


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ends the program where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m local_llm_worker.pooling",
        description="Serves one embedding model, reranker or classifier over HTTP on the loopback. "
        f"Every request needs the key that the environment variable {KEY_VARIABLE} holds.",
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="PATH", help="the model's folder")
    add("--served-name", nargs="+", required=True, metavar="NAME", help="the id, then further names")
    add("--port", type=int, required=True)
    add("--kind", choices=[each.value for each in Kind], help="else the folder's content decides")
    add(
        "--token-ids",
        choices=[each.value for each in TokenIds],
        default=TokenIds.OPENAI.value,
        help="what token arrays hold: OpenAI's cl100k_base (default) or the model's own ids",
    )
    add("--max-length", type=_count, metavar="N", help="tokens of one input; else what the folder says")
    add("--prompt", metavar="NAME|TEXT", help="an embedding model's, put before inputs that name none")
    add("--max-batch-tokens", type=_count, default=16384, metavar="N", help="padding included (16384)")
    add("--max-body-bytes", type=_count, default=256 << 20, metavar="N", help="of one request (256 MiB)")
    add("--threads", type=_count, metavar="N", help="else the cores that are free to this process")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--trust-remote-code", action="store_true", help="run Python files that lie in the model's folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop.

    Args:
        arguments: the command line without the program; None for this process' own.

    Returns:
        The exit code.
    """
    asked = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        worker_key()
        kind = Kind(asked.kind) if asked.kind else Folder(asked.model).kind()
        listener = _bind(asked.port)
    except (ModelRefused, RuntimeError, OSError) as error:
        return _refuse(error)
    with listener:
        try:
            server = _load(asked, kind)
        except ModelRefused as error:
            return _refuse(error)
        sys.setswitchinterval(_SWITCH_SECONDS)
        return server.run_until_stopped(listener)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens and ends with 0 when it was asked to end.

    Args:
        app: what is served.
        device_lost: set by the engine when no batch can succeed any more.
    """

    def __init__(self, app: KeyGuard, device_lost: Event) -> None:
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._device_lost = device_lost

    def run_until_stopped(self, listener: socket.socket) -> int:
        """Serves on a bound socket; returns the exit code."""
        # uvicorn raises a signal again after it has shut down, for handlers that were there before.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda _number, _frame: None)
        self.run(sockets=[listener])
        return EXIT_DEVICE_LOST if self._device_lost.is_set() else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then says that the port is open."""
        await super().startup(sockets)
        _announce("ready")

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn's, every tenth of a second; ends the server when the device is lost."""
        return await super().on_tick(counter) or self._device_lost.is_set()


def library_environment(threads: int) -> dict[str, str]:
    """What the libraries read once, when they are loaded; a warm template must be started with it too.

    Args:
        threads: cores that this process may use.
    """
    return {
        "HF_HUB_OFFLINE": "1",  # nothing is ever fetched
        "RAYON_NUM_THREADS": str(threads),  # Rust's tokenizers would start one for each core of the host
        # OpenMP's threads wait for one another a hundred times in a batch. With 2,000 turns of spinning (a
        # tenth of a millisecond) before they sleep, a lone short text takes 9.3 ms in place of 12.3 (MiniLM,
        # two cores). Spinning for longer costs more than it gives once other work wants one of the cores.
        "GOMP_SPINCOUNT": "2000",
    }


def _load(asked: argparse.Namespace, kind: Kind) -> _Server:
    """Imports the engine and loads the model.

    Raises:
        ModelRefused: the folder cannot be served, or not so.
    """
    threads = asked.threads or usable_cores()
    for name, value in library_environment(threads).items():
        os.environ.setdefault(name, value)
    _announce("import")
    from local_llm_worker.pooling.endpoints import Endpoints
    from local_llm_worker.pooling.engine import Engine
    from local_llm_worker.pooling.loading import LoadOptions, load
    from local_llm_worker.pooling.server import App

    _announce("weights")
    options = LoadOptions(
        kind,
        asked.device,
        asked.dtype,
        threads,
        asked.max_batch_tokens,
        asked.trust_remote_code,
        asked.max_length,
        asked.prompt,
    )
    # In a thread that ends, and its OpenMP helpers with it. Those of this one and of the engine's together
    # would be more than there are cores, and then none of them is let spin.
    with ThreadPoolExecutor(1) as loader:
        loaded = loader.submit(load, asked.model, options).result()

    device_lost = Event()
    endpoints = Endpoints(
        loaded.model,
        Engine(loaded.model, loaded.limits, on_device_lost=device_lost.set, lanes=loaded.lanes),
        served_names=asked.served_name,
        token_ids=TokenIds(asked.token_ids),
        max_body_bytes=asked.max_body_bytes,
    )
    return _Server(KeyGuard(App(endpoints)), device_lost)


def _bind(port: int) -> socket.socket:
    """Takes the port now, so that one in use is told at once; it listens when the model is loaded."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


def _refuse(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return EXIT_REFUSED


def _announce(phase: str) -> None:
    sys.stdout.write(f"phase: {phase}\n")
    sys.stdout.flush()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
