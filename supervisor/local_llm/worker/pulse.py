"""Whether a ready worker still answers: a stopped or deadlocked one must not hold its clients for ever."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import httpx

from local_llm.catalog.card import Engine
from local_llm.settings import StopSettings
from local_llm.worker.launch import Identity
from local_llm.worker.probe import client

_EVERY_SECONDS = 5.0
_REFUSED_PAUSE_SECONDS = 0.5

# So many probes in a row must go unanswered. One alone proves nothing: if the whole machine was paused (a
# container's freezer, a debugger), the probe's time is up before the worker could run again.
_PROBES = 4

_ENGINE_DEAD = 503


class Pulse:
    """Asks one ready worker for its health now and then.

    A worker that is merely busy answers: vLLM's API server computes nothing itself, and our own answers
    from its event loop while a thread computes.

    Args:
        identity: the worker.
        settings: gives, as it holds now, the silence that counts as death; 0: none does.
        look: called before each probe.
    """

    def __init__(
        self, identity: Identity, settings: Callable[[], StopSettings], look: Callable[[], None] | None = None
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._look = look

    async def until_lost(self) -> str:
        """Returns when the worker is lost: what happened, to follow "its worker"."""
        unanswered = 0
        path = self._identity.ready_path
        # What another's server means by it is not known: that it answers is enough.
        dead = None if self._identity.card.engine is Engine.COMMAND else _ENGINE_DEAD
        async with client(self._identity, timeout_seconds=None) as http:
            while unanswered < _PROBES:
                if not unanswered:
                    await anyio.sleep(min(_EVERY_SECONDS, self._unresponsive_seconds or _EVERY_SECONDS))
                if self._look is not None:
                    self._look()
                seconds = self._unresponsive_seconds
                status = await self._status(http, seconds / _PROBES) if seconds else 200
                if status is not None and status == dead:
                    return "said that its engine is dead (GET /health: 503)"
                unanswered = unanswered + 1 if status is None else 0
        return f"did not answer GET {path} for {seconds:g} s (stop.unresponsive_seconds)"

    @property
    def _unresponsive_seconds(self) -> float:
        return self._settings().unresponsive_seconds

    async def _status(self, http: httpx.AsyncClient, patience_seconds: float) -> int | None:
        """Of one answer; None if there was none in this probe's share of the time."""
        with anyio.move_on_after(patience_seconds):
            while True:
                try:
                    return (await http.get(self._identity.ready_path)).status_code
                except httpx.HTTPError:  # noqa: PERF203 - it waits anyway
                    await anyio.sleep(_REFUSED_PAUSE_SECONDS)
        return None
