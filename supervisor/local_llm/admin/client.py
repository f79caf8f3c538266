"""Asks a running server's /admin, and says what is wrong so that a person knows what to do."""

from __future__ import annotations

from typing import Any

import httpx

TIMEOUT_SECONDS = 10.0


class AdminError(Exception):
    """The server did not answer as it should; the message says why and what to do.

    Attributes:
        may_pass: it may be well again in a moment, when the server has started.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class AdminClient:
    """A server's /admin. A context.

    Args:
        url: of the server, without a path; what is pasted from a client, ending in /v1, is good, too.
        key: one of the server's, if it wants any.

    Raises:
        AdminError: that is no URL.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            # Not by a proxy that the environment names: the server is next door.
            self._client = httpx.Client(
                base_url=self._url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False
            )
            httpx.URL(self._url + "/admin/status").host.encode("ascii")
        except (httpx.InvalidURL, UnicodeError) as problem:
            raise AdminError(f"{url}: {problem}") from None

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self) -> dict[str, Any]:
        """GET /admin/status.

        Raises:
            AdminError: it could not be had.
        """
        return self._ask("GET", "/admin/status")

    def load(self, model: str) -> dict[str, Any]:
        """POST /admin/load; returns when the model is ready.

        Raises:
            AdminError: it could not be loaded.
        """
        return self._ask("POST", "/admin/load", {"model": model}, timeout_seconds=None)

    def unload(self, model: str) -> dict[str, Any]:
        """POST /admin/unload.

        Raises:
            AdminError: there is no such model.
        """
        return self._ask("POST", "/admin/unload", {"model": model})

    def _ask(
        self,
        method: str,
        path: str,
        order: dict[str, Any] | None = None,
        timeout_seconds: float | None = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, json=order, timeout=timeout_seconds)
        except httpx.ConnectError as problem:
            raise AdminError(
                f"nothing answers at {self._url} ({problem}). Does the server run? --url says where.",
                may_pass=True,
            ) from None
        except httpx.HTTPError as problem:
            words = str(problem) or type(problem).__name__
            raise AdminError(f"{self._url} does not answer: {words}", may_pass=True) from None
        except (httpx.InvalidURL, UnicodeError) as problem:
            raise AdminError(f"{self._url}: {problem}") from None
        return self._told(answer)

    def _told(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            told = answer.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise AdminError(f"what answers at {self._url} is no local-llm server")
        if answer.is_success:
            return told
        error = told.get("error")
        words = error.get("message") if isinstance(error, dict) else None
        match answer.status_code:
            case 401:
                words = f"the server at {self._url} wants a key: give one by --key, or in LOCAL_LLM_KEY"
            case 404 if not (isinstance(error, dict) and error.get("code") == "model_not_found"):
                words = f"the server at {self._url} has no /admin: it is switched off there (admin: false)"
        raise AdminError(str(words or f"the server answered with status {answer.status_code}"))
