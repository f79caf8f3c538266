"""The application: routes, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local_llm_worker.pooling.endpoints import ClientLeft, Endpoints, json_response
from local_llm_worker.pooling.errors import ComputationFailed, MethodNotAllowed, NotFound, RequestError

_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody reads it


def create_app(endpoints: Endpoints) -> Starlette:
    """The application for one model; its lifespan runs the engine. Whoever serves it adds the key guard."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with endpoints.engine:
            yield

    posts = {
        "/v1/embeddings": endpoints.embed,
        "/embeddings": endpoints.embed,
        "/v1/rerank": endpoints.rerank,
        "/v2/rerank": endpoints.rerank,
        "/rerank": endpoints.rerank,
        "/v1/score": endpoints.score,
        "/score": endpoints.score,
    }
    routes = [Route(path, handler, methods=["POST"]) for path, handler in posts.items()]
    routes.append(Route("/health", endpoints.health, methods=["GET"]))
    routes.append(Route("/v1/models", endpoints.models, methods=["GET"]))
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            RequestError: _answer_error,
            HTTPException: _answer_http_error,
            ClientLeft: _answer_nobody,
            Exception: _answer_bug,
        },
    )


async def _answer_error(_request: Request, error: Any) -> Response:
    return json_response(error.body(), error.status)


async def _answer_http_error(request: Request, error: Any) -> Response:
    """Starlette's own errors: no such path, or another method."""
    told: RequestError
    if error.status_code == MethodNotAllowed.status:
        told = MethodNotAllowed(f"{request.url.path} is not for {request.method}.")
    else:
        told = NotFound(f"There is no {request.url.path} here.")
    headers = dict(error.headers) if error.headers else None
    return json_response(told.body(), told.status, headers)


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _answer_bug(_request: Request, error: Exception) -> Response:
    """The traceback is logged by the server, which gets the exception after this answer."""
    told = ComputationFailed(f"The worker failed ({type(error).__name__}); its log says more.")
    return json_response(told.body(), told.status)
