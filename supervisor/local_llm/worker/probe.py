"""Readiness: an answer of 200 to the worker's own key, and the model's name among those it serves."""

from __future__ import annotations

import anyio
import httpx

from local_llm.worker.launch import Identity

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
# One probe. A worker that accepts and does not answer is asked again, until the load's own deadline.
_PROBE_SECONDS = 5.0


class Probe:
    """Asks one worker whether it is ready.

    Args:
        identity: the worker.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def until_answered(self) -> str | None:
        """Polls, backing off, until the worker answers.

        A fresh port proves little: somebody else may have taken it. An answer to the worker's own key
        together with the model's name does.

        Returns:
            None if it is who it should be, else what it calls itself instead, in a sentence's end.
        """
        pause = _FIRST_PAUSE_SECONDS
        async with client(self._identity, timeout_seconds=_PROBE_SECONDS) as http:
            while True:
                names = await self._served_names(http)
                if names is not None:
                    break
                await anyio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        if self._identity.card.id in names:
            return None
        return f"it serves {', '.join(map(repr, names)) or 'no model'} instead"

    async def _served_names(self, http: httpx.AsyncClient) -> list[str] | None:
        """The names that a ready worker serves; None while it is not ready."""
        try:
            if (await http.get("/health")).status_code != 200:
                return None
            answer = await http.get("/v1/models")
            if answer.status_code != 200:
                return None
            return [str(model["id"]) for model in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None


def client(identity: Identity, *, timeout_seconds: float | None) -> httpx.AsyncClient:
    """A client with the worker's key, for a question now and then: no connection is kept."""
    return httpx.AsyncClient(
        base_url=identity.base_url,
        headers={"authorization": f"Bearer {identity.key}"},
        timeout=timeout_seconds,
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,  # HTTP_PROXY is not for the loopback
    )
