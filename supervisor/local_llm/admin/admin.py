"""The routes below /admin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_llm.admin.access import check_local
from local_llm.admin.event_stream import EventStream
from local_llm.admin.feed import EventFeed
from local_llm.admin.status import Status
from local_llm.catalog.card import Engine
from local_llm.catalog.catalog import Catalog
from local_llm.errors import InvalidRequest, ModelBroken, ModelNotFound
from local_llm.gateway.keys import KeyCheck
from local_llm.gateway.request import BodyBudget, ClientLeft
from local_llm.live_settings import LiveSettings
from local_llm.switchboard.switchboard import Switchboard
from local_llm.worker.template import Template


class LoadOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /admin/load. `wait`: answer when the model is ready, rather than at once."""

    model: str
    wait: bool = True


class UnloadOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /admin/unload."""

    model: str


Order = TypeVar("Order", LoadOrder, UnloadOrder)


class Admin:
    """Answers what is below /admin, to whom it may.

    Args:
        settings: for status.
        catalog: the models there are.
        switchboard: loads and unloads them.
        keys: if it wants any, the app has checked them; else only local clients are let in.
        budget: counts bodies.
        feed: what happens.
        templates: the warm ones, for status.
    """

    def __init__(
        self,
        settings: LiveSettings,
        catalog: Catalog,
        switchboard: Switchboard,
        keys: KeyCheck,
        budget: BodyBudget,
        feed: EventFeed,
        templates: Mapping[Engine, Template],
    ) -> None:
        self._catalog = catalog
        self._switchboard = switchboard
        self._keys = keys
        self._budget = budget
        self._feed = feed
        self._status = Status(switchboard, settings, templates)

    def routes(self) -> list[Route]:
        """For the app."""
        return [
            Route("/admin/status", self._tell_status),
            Route("/admin/events", self._events),
            Route("/admin/load", self._load, methods=["POST"]),
            Route("/admin/unload", self._unload, methods=["POST"]),
            Route("/admin/rescan", self._rescan, methods=["POST"]),
        ]

    async def _tell_status(self, request: Request) -> Response:
        self._check(request)
        return JSONResponse(await self._status.tell())

    async def _events(self, request: Request) -> Response:
        self._check(request)
        return EventStream(self._feed)

    async def _load(self, request: Request) -> Response:
        self._check(request)
        order = await self._read(request, LoadOrder)
        card = self._catalog.find(order.model)
        if not order.wait:
            self._switchboard.load_soon(card.runs_as)
            return JSONResponse({"model": card.id, "state": "loading"}, 202)
        await self._switchboard.load(card.runs_as)
        return JSONResponse({"model": card.id, "state": "active"})

    async def _unload(self, request: Request) -> Response:
        self._check(request)
        order = await self._read(request, UnloadOrder)
        try:
            model_id = self._catalog.find(order.model).runs_as.id
        except (ModelNotFound, ModelBroken):
            if order.model not in {each.card.id for each in self._switchboard.standings()}:
                raise
            model_id = order.model  # its folder is gone, its worker is not
        workers = self._switchboard.unload(model_id)
        return JSONResponse({"model": model_id, "state": "unloading" if workers else "idle"})

    async def _rescan(self, request: Request) -> Response:
        self._check(request)
        return JSONResponse(self._catalog.snapshot().as_json())

    def _check(self, request: Request) -> None:
        if not self._keys.wanted:
            check_local(request.scope)

    async def _read(self, request: Request, kind: type[Order]) -> Order:
        with self._budget.holding() as held:
            try:
                await held.read(request.scope, request.receive)
            except ClientLeft:
                raise InvalidRequest("The client left before its body was complete.") from None
            body = held.content
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise InvalidRequest(f'The body must be like {{"model": "org/name"}}: {problem}') from None
