"""The routes: what is answered here, and what the gateway takes to a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from local_llm import __version__
from local_llm.catalog.card import ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.errors import MethodNotAllowed, NotFound, ServiceError
from local_llm.gateway.endpoints import ENDPOINTS
from local_llm.gateway.gateway import Gateway, access_log, request_id
from local_llm.gateway.keys import KeyCheck
from local_llm.switchboard.switchboard import Switchboard

STAGE_TO_STATE = {"loading": "loading", "serving": "active", "draining": "active", "leaving": "idle"}


class App:
    """The ASGI application. Worker endpoints skip every framework; the rest is Starlette's."""

    def __init__(
        self,
        catalog: Catalog,
        switchboard: Switchboard,
        gateway: Gateway,
        keys: KeyCheck,
        further_routes: Sequence[Route] = (),
    ) -> None:
        self._catalog = catalog
        self._switchboard = switchboard
        self._gateway = gateway
        self._keys = keys
        self._started_at = time.monotonic()
        self._local = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/models", self._models),
                Route("/v1/models/{name:path}", self._model),
                *further_routes,
            ],
            exception_handlers={
                ServiceError: _render,
                HTTPException: _render_http,
                Exception: _render_unknown,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatches by path; keys are checked before anything else."""
        if scope["type"] != "http":
            await _refuse_other_protocols(scope, send)
            return
        path = scope["path"]
        endpoint = ENDPOINTS.get(path)
        identified = _with_request_id(scope, send)
        try:
            if path != "/health":
                self._keys.check(scope)
            if endpoint is not None and scope["method"] != "POST":
                raise MethodNotAllowed(f"{path} is called with POST.", allow="POST")
        except ServiceError as error:
            _log_refusal(scope, error)
            body = endpoint.error_body(error) if endpoint else None
            await _json(error, body)(scope, receive, identified)
            return
        if endpoint is not None:
            await self._gateway.handle(endpoint, scope, receive)
        else:
            await self._local(scope, receive, identified)

    async def _health(self, _: Request) -> Response:
        workers = [
            {
                "model": standing.card.id,
                "phase": standing.stage,
                "since_seconds": round(standing.since_seconds, 1),
                "requests": standing.leases,
            }
            for standing in self._switchboard.standings()
        ]
        active = next((each["model"] for each in workers if each["phase"] == "serving"), None)
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "uptime_seconds": round(time.monotonic() - self._started_at, 1),
                "active_model": active,
                "workers": workers,
                "waiting": self._switchboard.waiting(),
            }
        )

    async def _models(self, _: Request) -> Response:
        states = self._states()
        data = [_model_object(card, states) for card in self._catalog.snapshot().models]
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        card = self._catalog.find(request.path_params["name"])
        return JSONResponse(_model_object(card, self._states()))

    def _states(self) -> dict[str, str]:
        return {each.card.id: STAGE_TO_STATE[each.stage] for each in self._switchboard.standings()}


def _log_refusal(scope: Scope, error: ServiceError) -> None:
    client = (scope.get("client") or (None,))[0]
    fields = {"path": scope["path"], "status": error.status, "error": error.code, "client": client}
    access_log.warning("refused", extra={"fields": fields})


def _with_request_id(scope: Scope, send: Send) -> Send:
    """The gateway names its requests itself; this is for what is answered here."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            header = (b"x-request-id", request_id(scope).encode())
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return named


def _model_object(card: ModelCard, states: dict[str, str]) -> dict[str, Any]:
    return {
        "id": card.id,
        "object": "model",
        "created": card.created,
        "owned_by": card.id.split("/")[0] if "/" in card.id else "local",
        "kind": card.kind.value,
        "engine": card.engine.value,
        "state": states.get(card.runs_as.id, "idle"),
        "parent": None if card.base is None else card.base.id,
        "aliases": list(card.aliases),
        "context_length": card.context_length,
        "max_model_len": card.context_length,
        "size_bytes": card.size_bytes,
    }


def _json(error: ServiceError, body: bytes | None = None) -> Response:
    headers = error.headers()
    if body is not None:
        return Response(body, error.status, headers, media_type="application/json")
    return JSONResponse(error.body(), error.status, headers)


async def _render(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)  # noqa: S101 - Starlette calls it for nothing else
    return _json(error)


async def _render_http(request: Request, error: Exception) -> Response:
    path = request.url.path
    if isinstance(error, HTTPException) and error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "GET")
        return _json(MethodNotAllowed(f"{path} is called with {allow}.", allow=allow))
    known = ", ".join(["/v1/models", "/health", *ENDPOINTS])
    return _json(NotFound(f"There is nothing at {path!r}. There are {known}."))


async def _render_unknown(_: Request, __: Exception) -> Response:
    return _json(ServiceError("An internal error. The server's log has the details."))


async def _refuse_other_protocols(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
