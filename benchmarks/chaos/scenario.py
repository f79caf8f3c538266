"""How wild it gets, and the server's settings, by engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.chaos.asking import MAX_BODY_BYTES


@dataclass(frozen=True, slots=True)
class Scenario:
    """How wild it gets, by engine.

    Attributes:
        clients: at the same time.
        client_pause_seconds: between two requests of one client, on average.
        strike_seconds: between two blows at a worker's processes.
        folder_seconds: between two acts on model folders.
        supervisor_seconds: between two ends of the supervisor.
        longest: text sent, in words.
        least_switches: in a minute.
        hung_seconds: a request that takes longer hangs.
        settings: of the server.
    """

    clients: int
    client_pause_seconds: float
    strike_seconds: float
    folder_seconds: float
    supervisor_seconds: float
    longest: int
    least_switches: float
    hung_seconds: float
    settings: Mapping[str, Any]


FAKE = Scenario(
    clients=24,
    client_pause_seconds=0.5,
    strike_seconds=1.5,
    folder_seconds=1.2,
    supervisor_seconds=40.0,
    longest=20_000,
    least_switches=20,
    hung_seconds=90.0,
    settings={
        "max_body_bytes": MAX_BODY_BYTES,
        "queue": {"drain_max_seconds": 3, "max_wait_seconds": 60},
        "load": {"max_seconds": 5, "stream_feedback_after_seconds": 1},
        "stop": {"grace_seconds": 0.5, "unresponsive_seconds": 4, "shutdown_grace_seconds": 3},
    },
)

REAL = Scenario(
    clients=6,
    client_pause_seconds=4.0,
    strike_seconds=20.0,
    folder_seconds=30.0,
    supervisor_seconds=100.0,
    longest=200,
    least_switches=1,
    hung_seconds=400.0,
    settings={
        "max_body_bytes": MAX_BODY_BYTES,
        "queue": {"drain_max_seconds": 60, "max_wait_seconds": 240},
        "load": {"stall_seconds": 60, "stream_feedback_after_seconds": 5},
        "stop": {"grace_seconds": 5, "unresponsive_seconds": 15, "shutdown_grace_seconds": 10},
    },
)
