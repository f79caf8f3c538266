"""Refuses whoever does not know the worker's key.

A worker listens on the loopback, where every user of the host could walk around the supervisor. Engines
do not close that door by themselves: vLLM's own `VLLM_API_KEY` leaves `/invocations`, `/tokenize` and
`/metrics` open. So this middleware stands in front of every path of every worker; vLLM takes it as
`--middleware local_llm_worker.key_guard.KeyGuard`. Standard library only, since it is imported there.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

KEY_VARIABLE = "LOCAL_LLM_WORKER_KEY"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008  # RFC 6455; before the handshake ASGI servers turn it into a 403
_REFUSAL = json.dumps(
    {
        "error": {
            "message": "This is a worker of local-llm, and the key is wrong or missing. "
            "Ask the supervisor instead.",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
).encode()


def worker_key() -> str:
    """The key in this process' environment.

    Raises:
        RuntimeError: there is none.
    """
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise RuntimeError(f"{KEY_VARIABLE} is not set: a worker does not run without a key.")
    return key


class KeyGuard:
    """ASGI middleware that lets pass only requests with ``Authorization: Bearer <the worker's key>``.

    Args:
        app: what is guarded. Its lifespan events pass.

    Raises:
        RuntimeError: the environment has no `LOCAL_LLM_WORKER_KEY`. A guard without a key would be an
            open door that looks closed.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._expected = f"Bearer {worker_key()}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the connection on, or answers it with 401."""
        if scope["type"] == "lifespan" or self._knows_the_key(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await _refuse(send)

    def _knows_the_key(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
        return hmac.compare_digest(given, self._expected)


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_REFUSAL)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})
