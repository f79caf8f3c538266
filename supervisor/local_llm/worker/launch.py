"""Everything that is decided about a worker before its first process exists."""

from __future__ import annotations

import random
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from local_llm.catalog.card import ModelCard
from local_llm.gpu import Device

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one worker from every other.

    Attributes:
        worker_id: short and unique in this run of the supervisor.
        card: the model it serves.
        port: where it will listen, on the loopback.
        key: what it demands on every path. It travels in the environment, never in a command line,
            which everybody on the host can read.
        temporary: its own folder, for its sockets and temporary files.
        ready_path: answers 200 once it is ready.
    """

    worker_id: str
    card: ModelCard
    port: int
    key: str = field(repr=False)
    temporary: Path
    ready_path: str = "/health"

    @classmethod
    def fresh(cls, worker_id: str, card: ModelCard, temporary: Path, ready_path: str = "/health") -> Identity:
        """A new identity with a free port and a random key."""
        # Not token_urlsafe: an own server is given it as an argument, which must not begin with a dash.
        return cls(worker_id, card, free_port(), secrets.token_hex(32), temporary, ready_path)

    @property
    def base_url(self) -> str:
        """Where it will answer."""
        return f"http://{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """What the nanny is told to run.

    Attributes:
        identity: whose launch it is.
        argv: program and arguments.
        env: the whole environment.
        devices: the GPUs as they were before the launch; none where there is no GPU.
        stop_signal: asks it to end.
    """

    identity: Identity
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    devices: tuple[Device, ...] = ()
    stop_signal: Signals = Signals.SIGTERM


_FIRST_PORT = 20_000


def _first_ephemeral_port() -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return _FIRST_PORT


def free_port() -> int:
    """A loopback port that nobody listens on now.

    It lies below those that the kernel gives to outgoing connections: among them it would soon be taken.
    Another program may still take it before the worker does; then the worker fails to bind, and readiness
    does not mistake the other for it.
    """
    end = _first_ephemeral_port()
    for port in random.SystemRandom().sample(range(_FIRST_PORT, end), min(50, max(0, end - _FIRST_PORT))):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
