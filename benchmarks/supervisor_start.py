"""How quickly the supervisor is up, and how much memory it takes.

    python -m benchmarks.supervisor_start [STARTS]

Starts `local-llm serve` on an empty folder, asks GET /health every two milliseconds until it answers, and
prints the medians. RSS counts pages that are shared with other processes in full, PSS in part.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import psutil

from local_llm.worker.launch import free_port

PAUSE_SECONDS = 0.002
LONGEST_SECONDS = 30.0


class Start(NamedTuple):
    """One start: seconds to the first answer, how many of them a core worked for it, then megabytes."""

    seconds: float
    core_seconds: float
    rss_mb: float
    pss_mb: float


def measure(models_dir: Path) -> Start:
    """Starts the supervisor once, and ends it.

    Raises:
        TimeoutError: it did not answer within 30 s.
    """
    port = free_port()
    command = [sys.executable, "-m", "local_llm", "serve", "--models", str(models_dir), "--port", str(port)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.DEVNULL)
    try:
        _wait_for_health(f"http://127.0.0.1:{port}/health", began)
        seconds = time.monotonic() - began
        seen = psutil.Process(process.pid)
        cpu, memory = seen.cpu_times(), seen.memory_full_info()
        return Start(seconds, cpu.user + cpu.system, memory.rss / 1e6, memory.pss / 1e6)
    finally:
        process.terminate()
        process.wait()


def _wait_for_health(url: str, began: float) -> None:
    while not _answers(url):
        if time.monotonic() - began > LONGEST_SECONDS:
            raise TimeoutError(f"{url} did not answer within {LONGEST_SECONDS:g} s")
        time.sleep(PAUSE_SECONDS)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.URLError:
        return False


def main() -> None:
    """Measures and prints."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder))  # byte code is written, files come into the page cache
        starts = [measure(Path(folder)) for _ in range(count)]
    seconds, core_seconds, rss_mb, pss_mb = (
        statistics.median(column) for column in zip(*starts, strict=True)
    )
    print(f"start to GET /health: {seconds:.2f} s (median of {count}; {_range(starts)})")
    print(f"of which a core worked {core_seconds:.2f} s")
    print(f"memory: {rss_mb:.0f} MB RSS, {pss_mb:.0f} MB PSS")


def _range(starts: list[Start]) -> str:
    seconds = [each.seconds for each in starts]
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


if __name__ == "__main__":
    main()
