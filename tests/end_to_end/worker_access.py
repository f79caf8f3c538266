"""Looks behind the front door: a running worker's port and key, read from its process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import psutil

from tests.serving import Served


@dataclass(frozen=True)
class BehindTheDoor:
    """What only root, or the tests, can know of a worker."""

    url: str
    key: str

    def client(self) -> httpx.Client:
        """A client that has the worker's key."""
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=60)


def the_worker(served: Served) -> BehindTheDoor:
    """The one worker that runs."""
    processes = served.descendants()
    for process in processes:
        # A forked process that has named itself shows its command line as one argument.
        arguments = " ".join(process.cmdline()).split()
        if "--port" in arguments:
            port = arguments[arguments.index("--port") + 1]
            return BehindTheDoor(f"http://127.0.0.1:{port}", _key(processes))
    raise AssertionError("no worker runs")


def _key(processes: Sequence[psutil.Process]) -> str:
    """From whichever of its processes was executed with it: a forked one shows its template's environment."""
    for process in processes:
        key = process.environ().get("LOCAL_LLM_WORKER_KEY")
        if key is not None:
            return key
    raise AssertionError("no process has the worker's key")


def metric(client: httpx.Client, name: str) -> float:
    """The sum of a Prometheus metric's samples in the worker's /metrics."""
    text = client.get("/metrics").raise_for_status().text
    samples = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert samples, f"no {name} in /metrics"
    return sum(float(sample) for sample in samples)


def tree(served: Served) -> list[psutil.Process]:
    """All that runs below the supervisor."""
    return served.descendants()
