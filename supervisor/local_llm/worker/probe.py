"""Readiness: an answer of 200 to the worker's own key, and the model's name among those it serves.

A server that the settings bring knows neither our key nor our names: it answers, and the port is its own.
"""

from __future__ import annotations

import anyio
import httpx

from local_llm.catalog.card import Engine
from local_llm.worker.launch import Identity
from local_llm.worker.port_owner import stranger_on

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
# One probe. A worker that accepts and does not answer is asked again, until the load's own deadline.
_PROBE_SECONDS = 5.0


class _NotYet(Exception):
    """It is not ready."""


class Probe:
    """Asks one worker whether it is ready.

    Args:
        identity: the worker.
        root: the process id of its nanny.
    """

    def __init__(self, identity: Identity, root: int) -> None:
        self._identity = identity
        self._root = root

    async def until_answered(self) -> str | None:
        """Polls, backing off, until the worker answers.

        A fresh port proves little: somebody else may have taken it. An answer to the worker's own key
        together with the model's name does.

        Returns:
            None if it is who it should be, else what it is instead, to follow "its worker".
        """
        pause = _FIRST_PAUSE_SECONDS
        async with client(self._identity, timeout_seconds=_PROBE_SECONDS) as http:
            while True:
                try:
                    return await self._proof(http)
                except _NotYet:  # noqa: PERF203 - it waits anyway
                    await anyio.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    async def _proof(self, http: httpx.AsyncClient) -> str | None:
        """As `until_answered`.

        Raises:
            _NotYet: it does not answer, or not as a worker that is ready.
        """
        try:
            if (await http.get(self._identity.ready_path)).status_code != 200:
                raise _NotYet
            if self._identity.card.engine is Engine.COMMAND:
                return await anyio.to_thread.run_sync(stranger_on, self._identity.port, self._root)
            answer = await http.get("/v1/models")
            if answer.status_code != 200:
                raise _NotYet
            names = [str(model["id"]) for model in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise _NotYet from error
        if self._identity.card.id in names:
            return None
        return f"it serves {', '.join(map(repr, names)) or 'no model'} instead"


def client(identity: Identity, *, timeout_seconds: float | None) -> httpx.AsyncClient:
    """A client with the worker's key, for a question now and then: no connection is kept."""
    return httpx.AsyncClient(
        base_url=identity.base_url,
        headers={"authorization": f"Bearer {identity.key}"},
        timeout=timeout_seconds,
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,  # HTTP_PROXY is not for the loopback
    )
