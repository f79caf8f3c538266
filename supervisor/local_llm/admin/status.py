"""GET /admin/status: all that an operator wants to know, in one JSON object. Never a key, never a prompt."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import anyio

from local_llm import __version__
from local_llm.admin.tree_memory import TreeMemory, tree_memories
from local_llm.catalog.card import Engine
from local_llm.live_settings import LiveSettings
from local_llm.switchboard.standing import Standing
from local_llm.switchboard.switchboard import Switchboard
from local_llm.worker.template import Ready, Template


class Status:
    """Puts the object together.

    Args:
        switchboard: is only looked at.
        settings: for the limits, and what became of their file's last change.
        templates: the warm ones, by engine.
    """

    def __init__(
        self, switchboard: Switchboard, settings: LiveSettings, templates: Mapping[Engine, Template]
    ) -> None:
        self._switchboard = switchboard
        self._settings = settings
        self._templates = templates
        self._started_at = time.monotonic()

    async def tell(self) -> dict[str, Any]:
        """As it is now. Byte figures are of process trees; null where the machine does not tell."""
        standings = self._switchboard.standings()
        roots = [pid for each in standings if (pid := each.worker.nanny_pid) is not None]
        seen = await anyio.to_thread.run_sync(tree_memories, roots)
        waiting = self._switchboard.waiting()
        return {
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._started_at, 1),
            "pid": os.getpid(),
            "workers": [_worker(each, seen) for each in standings],
            "templates": [_template(each) for each in self._templates.values()],
            "waiting": {"total": sum(waiting.values()), "by_model": waiting},
            "cooldowns": [
                {
                    "model": each.model_id,
                    "failures": each.failures,
                    "seconds_left": round(each.seconds_left, 1),
                    "error": each.error,
                }
                for each in self._switchboard.cooldowns()
            ],
            "models": self._models(),
            "limits": self._limits(),
            "settings": self._settings.tell(),
        }

    def _models(self) -> dict[str, Any]:
        """What was seen of each model: in this run, and of the costs also in earlier ones."""
        costs = self._switchboard.costs()
        history = self._switchboard.history()
        now = time.monotonic()
        told: dict[str, Any] = {}
        for model in sorted({*costs, *history}):
            record = history.get(model)
            failed = record is not None and record.last_error is not None
            told[model] = {
                "starts": record.starts if record else 0,
                "failures": record.failures if record else 0,
                "last_error": record.last_error if record else None,
                "last_error_seconds_ago": round(now - record.last_error_at, 1) if record and failed else None,
                "switch_seconds": round(costs[model], 3) if model in costs else None,
            }
        return told

    def _limits(self) -> dict[str, Any]:
        settings = self._settings.current
        sections = {"queue": settings.queue, "residency": settings.residency, "load": settings.load}
        return {name: section.model_dump(mode="json") for name, section in sections.items()}


def _template(template: Template) -> dict[str, Any]:
    """One warm template: what it costs, and what it took to make."""
    state = template.state
    ready = state if isinstance(state, Ready) else None
    return {
        "engine": template.plan.engine.value,
        "state": type(state).__name__.lower(),
        "seconds": ready.seconds if ready else None,
        "proportional_bytes": ready.proportional_bytes if ready else None,
    }


def _worker(standing: Standing, seen: dict[int, TreeMemory]) -> dict[str, Any]:
    worker = standing.worker
    tree = None if worker.nanny_pid is None else seen.get(worker.nanny_pid)
    return {
        "id": standing.worker_id,
        "model": standing.card.id,
        "kind": standing.card.kind.value,
        "engine": standing.card.engine.value,
        "adapters": [adapter.names[0] for adapter in standing.card.adapters],
        "phase": standing.stage,
        "since_seconds": round(standing.since_seconds, 1),
        "progress": worker.progress.in_words() if standing.stage == "loading" else None,
        "leases": standing.leases,
        "waiting": standing.waiting,
        "pid": next(iter(tree.pids), None) if tree else None,
        "processes": len(tree.pids) if tree else 0,
        "memory": {
            "resident_bytes": tree.resident_bytes if tree else None,
            "proportional_bytes": tree.proportional_bytes if tree else None,
            "gpu_bytes": tree.gpu_bytes if tree else None,
        },
    }
