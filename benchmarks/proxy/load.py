"""The load: wrk for requests, streams.c for event streams; and the figures both print."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.proxy.programs import CACHE, CHAT, Contender, body, compiled


class LoadFailed(Exception):
    """Some requests were not answered as they should be."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What became of many streams.

    Attributes:
        events: that arrived.
        broken: streams that ended early.
        chunks_per_second: of all streams together.
        first_ms: from asking to the first event, the median.
        delay_p99_ms: from writing an event to reading it.
    """

    events: int
    broken: int
    chunks_per_second: float
    first_ms: float
    delay_p99_ms: float


def requests_per_second(
    contender: Contender, *, seconds: int, work_us: int = 0, connections: int = 16
) -> float:
    """By wrk with one thread.

    Args:
        contender: whom to ask.
        seconds: how long.
        work_us: for which the worker computes over each answer.
        connections: kept, each with one request at a time.

    Raises:
        LoadFailed: an answer was no success, or too late.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "30"]
    command += ["-s", str(_wrk_script(work_us)), f"http://127.0.0.1:{contender.port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or "Non-2xx" in said or "Socket errors" in said:
        raise LoadFailed(f"{contender.name}: {said}")
    return float(rate[1])


def streams(
    contender: Contender,
    connections: int,
    *,
    rounds: int = 1,
    chunks: int,
    every_us: int = 0,
    spread_ms: int = 0,
) -> Streams:
    """By streams.c.

    Args:
        contender: whom to ask.
        connections: streams at a time.
        rounds: of them, one after the other.
        chunks: events of each.
        every_us: between a stream's events; 0: as fast as they are read.
        spread_ms: over which the first round's streams begin.
    """
    command = [str(compiled("streams")), *map(str, (contender.port, connections, rounds, spread_ms))]
    command += [f"x-chunks: {chunks}", f"x-every-us: {every_us}"]
    done = subprocess.run(command, input=body(stream=True), capture_output=True, check=True)
    said = json.loads(done.stdout)
    return Streams(
        events=said["events"],
        broken=said["broken"],
        chunks_per_second=said["events"] / said["seconds"],
        first_ms=said["first_us"][0] / 1000,
        delay_p99_ms=said["delay_us"][1] / 1000,
    )


@cache
def _wrk_script(work_us: int) -> Path:
    folder = CACHE / "proxy"
    (folder / "body").write_bytes(body(stream=False))
    script = folder / f"post-{work_us}.lua"
    script.write_text(f"""
wrk.method = "POST"
wrk.path = "{CHAT}"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["x-work-us"] = "{work_us}"
wrk.body = io.open("{folder.absolute()}/body"):read("*a")
""")
    return script
