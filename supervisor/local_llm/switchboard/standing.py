"""How things stand, for status: to be shown, never acted upon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from local_llm.catalog.card import ModelCard
from local_llm.switchboard.events import WorkerNumber
from local_llm.switchboard.policy import Policy
from local_llm.switchboard.worker import Worker


@dataclass(frozen=True, slots=True)
class Standing:
    """One worker. `waiting`: how many wait for its model; `stage`: as in residents.py, in lower case."""

    worker: Worker
    worker_id: str
    card: ModelCard
    stage: str
    since_seconds: float
    leases: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A model that is left alone because it failed."""

    model_id: str
    failures: int
    seconds_left: float
    error: str


def standings(policy: Policy, workers: Mapping[WorkerNumber, Worker], now: float) -> list[Standing]:
    """Every worker that takes a place."""
    waiting = {key: len(line.tickets) for key, line in policy.lines.items()}
    return [
        Standing(
            worker=worker,
            worker_id=worker.worker_id,
            card=worker.card,
            stage=type(resident.stage).__name__.lower(),
            since_seconds=now - resident.stage.since,
            leases=len(resident.leases),
            waiting=waiting.get(resident.model.key, 0),
        )
        for number, worker in workers.items()
        if (resident := policy.residents.get(number)) is not None
    ]


def cooldowns(policy: Policy, now: float) -> list[Cooldown]:
    """Every model that is left alone now."""
    return [
        Cooldown(each.label, each.count, each.until - now, each.message)
        for each in policy.setbacks.cooling(now)
    ]
