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


def words(process: psutil.Process) -> list[str]:
    """Its command line; one that a forked process gave itself is a single argument."""
    return " ".join(process.cmdline()).split()


def nannies(served: Served) -> list[psutil.Process]:
    """One a worker, whether it was started or forked."""
    children = psutil.Process(served.process.pid).children()
    return [child for child in children if "local_llm_worker.nanny" in words(child)]


def worker_processes(served: Served) -> list[psutil.Process]:
    """All that belongs to workers; the warm templates stay when workers go."""
    return [each for nanny in nannies(served) for each in (nanny, *nanny.children(recursive=True))]


def the_worker(served: Served) -> BehindTheDoor:
    """The one worker that runs."""
    processes = worker_processes(served)
    for process in processes:
        arguments = words(process)
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
