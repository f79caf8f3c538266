"""The application: routes, and errors in OpenAI's shape.

Plain ASGI: Starlette's middleware and routing took a third of what a request costs beside its embedding.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local_llm_worker.pooling.endpoints import ClientLeft, Endpoints, json_response
from local_llm_worker.pooling.errors import ComputationFailed, MethodNotAllowed, NotFound, RequestError

_log = logging.getLogger(__name__)

_CLIENT_CLOSED_REQUEST = 499  # nginx's number; nobody reads it

_Handler = Callable[[Request], Awaitable[Response]]


class App:
    """The application for one model; its lifespan runs the engine. Whoever serves it adds the key guard."""

    def __init__(self, endpoints: Endpoints) -> None:
        posts = {
            "/v1/embeddings": endpoints.embed,
            "/embeddings": endpoints.embed,
            "/v1/rerank": endpoints.rerank,
            "/v2/rerank": endpoints.rerank,
            "/rerank": endpoints.rerank,
            "/v1/score": endpoints.score,
            "/score": endpoints.score,
            "/v1/classify": endpoints.classify,
            "/classify": endpoints.classify,
        }
        gets = {"/health": endpoints.health, "/v1/models": endpoints.models}
        self._routes: dict[str, tuple[tuple[str, ...], _Handler]] = {
            **{path: (("POST",), handler) for path, handler in posts.items()},
            **{path: (("GET", "HEAD"), handler) for path, handler in gets.items()},
        }
        self._lifespan = Starlette(lifespan=_engine_of(endpoints))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or lives through the server's life."""
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._handler(request)(request)
        except MethodNotAllowed as error:
            return json_response(error.body(), error.status, {"allow": error.allow})
        except RequestError as error:
            return json_response(error.body(), error.status)
        except (ClientLeft, ClientDisconnect):
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        except Exception as error:  # noqa: BLE001 - the client is told, the log says more
            _log.exception("%s %s failed", request.method, request.url.path)
            told = ComputationFailed(f"The worker failed ({type(error).__name__}); its log says more.")
            return json_response(told.body(), told.status)

    def _handler(self, request: Request) -> _Handler:
        path = request.scope["path"]
        if path not in self._routes:
            raise NotFound(f"There is no {path} here.")
        methods, handler = self._routes[path]
        if request.method not in methods:
            raise MethodNotAllowed(f"{path} is not for {request.method}.", allow=", ".join(methods))
        return handler


def _engine_of(endpoints: Endpoints) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with endpoints.engine:
            yield

    return lifespan
