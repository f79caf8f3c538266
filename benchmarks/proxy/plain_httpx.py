"""The proxy that one writes first: Starlette and httpx, nothing else. For comparison only.

python benchmarks/proxy/plain_httpx.py PORT WORKER_URL
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

PORT, WORKER_URL = int(sys.argv[1]), sys.argv[2]
PASSED = ("content-type", "content-length")

client = httpx.AsyncClient(
    base_url=WORKER_URL, timeout=None, trust_env=False, limits=httpx.Limits(max_connections=None)
)


async def forward(request: Request) -> StreamingResponse:
    """Takes one request to the worker, and its answer back as it comes."""
    headers = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
    upstream = client.build_request("POST", request.url.path, headers=headers, content=await request.body())
    answer = await client.send(upstream, stream=True)
    passed = {name: answer.headers[name] for name in PASSED if name in answer.headers}
    closing = BackgroundTask(answer.aclose)
    return StreamingResponse(answer.aiter_raw(), answer.status_code, passed, background=closing)


@asynccontextmanager
async def closing_client(_: Starlette) -> AsyncIterator[None]:
    """Closes the connections to the worker at the end."""
    async with client:
        yield


app = Starlette(routes=[Route("/v1/chat/completions", forward, methods=["POST"])], lifespan=closing_client)
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
