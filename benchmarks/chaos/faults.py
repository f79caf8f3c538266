"""What is done to the server's processes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import psutil

NANNY_MODULE = "local_llm_worker.nanny"
TEMPLATE_PROGRAMS = ("local_llm_worker.template", "fake_engine/template.py")


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
                if NANNY_MODULE not in words(nanny):
                    continue
                worker = nanny.children()[0]
                found.append(WorkerTree(nanny, worker, _served_name(words(worker))))
    return found


def templates(supervisor_pid: int) -> list[psutil.Process]:
    """The warm templates that exist now."""
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(supervisor_pid).children():
            with suppress(psutil.Error):
                if any(word.endswith(TEMPLATE_PROGRAMS) for word in words(each)):
                    found.append(each)
    return found


def words(process: psutil.Process) -> list[str]:
    """Its command line; one that a forked process gave itself is a single argument."""
    return " ".join(process.cmdline()).split()


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

TEMPLATE_FAULT, TEMPLATE_WEIGHT = "template SIGKILLed", 1


def strike(chance: random.Random, supervisor_pid: int, spared: Collection[str]) -> str | None:
    """Does one thing to one worker, or to a template.

    Args:
        chance: of who strikes.
        supervisor_pid: whose workers.
        spared: ids of models to whose workers nothing is done.

    Returns:
        What was done; None if there was nobody to do it to.
    """
    weights = [*(weight for weight, _ in PROCESS_FAULTS.values()), TEMPLATE_WEIGHT]
    name = chance.choices([*PROCESS_FAULTS, TEMPLATE_FAULT], weights)[0]
    # Drawn before looking, so that the next decision does not depend on what is found.
    place = chance.random()
    with suppress(psutil.NoSuchProcess):
        if name == TEMPLATE_FAULT:
            return _kill_one(templates(supervisor_pid), place)
        trees = [tree for tree in worker_trees(supervisor_pid) if tree.model_id not in spared]
        if trees:
            PROCESS_FAULTS[name][1](trees[int(place * len(trees))])
            return name
    return None


def _kill_one(processes: list[psutil.Process], place: float) -> str | None:
    if not processes:
        return None
    processes[int(place * len(processes))].kill()
    return TEMPLATE_FAULT
