"""Which models may be started from a warm template: pure.

trusted ──failed warm──▶ suspected ──then ready cold──▶ cold only
   ▲                         │
   └──then failed cold too───┘
"""

from __future__ import annotations

from enum import Enum, auto


class _Standing(Enum):
    SUSPECTED = auto()
    COLD_ONLY = auto()


class Trust:
    """By model. What fails warm and not cold is started cold from then on, until the server ends."""

    def __init__(self) -> None:
        self._standings: dict[str, _Standing] = {}

    def may_fork(self, model_id: str) -> bool:
        """Whether the model's next worker may come from a template."""
        return model_id not in self._standings

    def warm_start_failed(self, model_id: str) -> None:
        """It did not become ready, and nothing known explains it: the next start is a cold one."""
        self._standings.setdefault(model_id, _Standing.SUSPECTED)

    def cold_start_failed(self, model_id: str) -> None:
        """The template was not to blame."""
        if self._standings.get(model_id) is _Standing.SUSPECTED:
            del self._standings[model_id]

    def cold_start_ready(self, model_id: str) -> bool:
        """Whether that convicts the template, just now."""
        if self._standings.get(model_id) is not _Standing.SUSPECTED:
            return False
        self._standings[model_id] = _Standing.COLD_ONLY
        return True
