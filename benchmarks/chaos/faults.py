"""What is done to the server's processes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import psutil

NANNY_MODULE = "local_llm_worker.nanny"


@dataclass(frozen=True, slots=True)
class WorkerTree:
    """One worker as somebody on the host would find it."""

    nanny: psutil.Process
    worker: psutil.Process
    model_id: str


def worker_trees(supervisor_pid: int) -> list[WorkerTree]:
    """Those that exist now; what ends meanwhile is left out."""
    found: list[WorkerTree] = []
    with suppress(psutil.NoSuchProcess):
        for nanny in psutil.Process(supervisor_pid).children():
            with suppress(psutil.Error, ValueError, IndexError):
                if NANNY_MODULE not in nanny.cmdline():
                    continue
                worker = nanny.children()[0]
                found.append(WorkerTree(nanny, worker, _served_name(worker.cmdline())))
    return found


def _served_name(command: list[str]) -> str:
    flag = "--served-model-name" if "--served-model-name" in command else "--served-name"
    return command[command.index(flag) + 1]


def _kill_worker(tree: WorkerTree) -> None:
    tree.worker.kill()


def _stop_worker(tree: WorkerTree) -> None:
    """For good: it is for the server to notice."""
    tree.worker.suspend()


def _pause_worker(tree: WorkerTree) -> None:
    """The same with every process below it."""
    for each in [tree.worker, *tree.worker.children(recursive=True)]:
        each.suspend()


def _terminate_worker(tree: WorkerTree) -> None:
    tree.worker.send_signal(signal.SIGTERM)


def _kill_nanny(tree: WorkerTree) -> None:
    tree.nanny.kill()


def _kill_both(tree: WorkerTree) -> None:
    tree.nanny.kill()
    tree.worker.kill()


PROCESS_FAULTS: dict[str, tuple[int, Callable[[WorkerTree], None]]] = {
    "worker SIGKILLed": (4, _kill_worker),
    "worker SIGSTOPped": (2, _stop_worker),
    "worker and all below SIGSTOPped": (1, _pause_worker),
    "worker SIGTERMed": (1, _terminate_worker),
    "nanny SIGKILLed": (3, _kill_nanny),
    "nanny and worker SIGKILLed": (1, _kill_both),
}
"""By name: how often in relation to the others, and what is done."""


def strike(chance: random.Random, supervisor_pid: int, spared: Collection[str]) -> str | None:
    """Does one thing to one worker.

    Args:
        chance: of who strikes.
        supervisor_pid: whose workers.
        spared: ids of models to whose workers nothing is done.

    Returns:
        What was done; None if there was no worker to do it to.
    """
    name = chance.choices(list(PROCESS_FAULTS), [weight for weight, _ in PROCESS_FAULTS.values()])[0]
    place = (
        chance.random()
    )  # drawn before looking, so that the next decision does not depend on what is found
    trees = [tree for tree in worker_trees(supervisor_pid) if tree.model_id not in spared]
    if not trees:
        return None
    try:
        PROCESS_FAULTS[name][1](trees[int(place * len(trees))])
    except psutil.NoSuchProcess:
        return None
    return name
