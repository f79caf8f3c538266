"""The whole server, put together: start-up, serving, shutdown."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import anyio
import uvicorn

from local_llm.admin.admin import Admin
from local_llm.admin.feed import EventFeed
from local_llm.app import App
from local_llm.catalog.card import Engine, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.per_card import PerCard
from local_llm.catalog.walk import ModelsDirUnreadable
from local_llm.errors import ServiceError
from local_llm.fit import Fit
from local_llm.gateway.endpoints import BodyForm
from local_llm.gateway.forward import DataPath
from local_llm.gateway.gateway import Gateway
from local_llm.gateway.keys import KeyCheck
from local_llm.gateway.request import BodyBudget
from local_llm.gateway.upload import UploadBudget
from local_llm.http1 import Http1Protocol
from local_llm.live_settings import LiveSettings
from local_llm.residency import load_unasked
from local_llm.settings import Settings
from local_llm.switchboard.cost_file import CostFile
from local_llm.switchboard.describe import describe, limits
from local_llm.switchboard.events import Model
from local_llm.switchboard.switchboard import Switchboard
from local_llm.worker.launcher import Launcher
from local_llm.worker.template import Template

log = logging.getLogger(__name__)

LAST_ANSWERS_SECONDS = 2.0
"""After the last worker has gone: for the last bytes to leave."""


MOST_DESCRIPTORS = 65_536
"""Enough for every client that may wait, and its worker's connection."""


class AddressInUse(Exception):
    """The server cannot listen where it should; the message says where and why."""


def listen(settings: Settings) -> socket.socket:
    """Opens the listening socket, before anything slow, so that a taken port is told at once.

    Raises:
        AddressInUse: with the address and the reason.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one of a host
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise AddressInUse(f"{settings.host}:{settings.port}: {reason}") from None
    listener.setblocking(False)
    return listener


class _Uvicorn(uvicorn.Server):
    """uvicorn, leaving signals to us: it would hear them only while it serves, not while workers end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing."""
        yield


def raise_descriptor_limit() -> None:
    """Lets this process open as many files as it may: the usual 1024 is used up by as many clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(live: LiveSettings, listener: socket.socket, keys: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT; returns when all workers are gone.

    Args:
        live: the settings, which may change while it serves.
        listener: from `listen`.
        keys: one of which a client must bring; none: everybody may come in.

    The first signal closes the listener, refuses those who wait, and lets running requests go on for
    `stop.shutdown_grace_seconds`; the second ends everything at once.
    """
    settings = live.current
    catalog, fit, feed = Catalog(settings), Fit(settings), EventFeed()
    described = PerCard(lambda card: describe(card, live.current))
    # The signals first and to the last: one that comes while the rest is made or ended must not kill us.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with Launcher(settings) as launcher, DataPath() as data_path:
            switchboard = _switchboard(settings, launcher, fit, described)
            app = _app(live, keys, catalog, switchboard, data_path, feed, launcher.templates.all)
            server = _Uvicorn(_uvicorn_config(settings, app))
            async with switchboard, anyio.create_task_group() as tasks:
                tasks.start_soon(_obey, signals, server, settings, switchboard, launcher, feed)
                tasks.start_soon(fit.measure)
                tasks.start_soon(launcher.templates.prepare, catalog.snapshot().models)
                tasks.start_soon(load_unasked, lambda: live.current.residency, catalog, switchboard)
                rooms = _Rooms(catalog, fit, launcher, described, switchboard)
                tasks.start_soon(live.follow, rooms.use)
                host, port = listener.getsockname()[:2]
                log.info(
                    "serving", extra={"fields": {"host": host, "port": port, "models": settings.models_dir}}
                )
                try:
                    await server.serve(sockets=[listener])
                    log.info("all connections are closed")
                finally:
                    with anyio.CancelScope(shield=True):
                        await switchboard.shut_down(grace_seconds=0)
                    tasks.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Rooms:
    """All that must know of changed settings."""

    catalog: Catalog
    fit: Fit
    launcher: Launcher
    described: PerCard[Model]
    switchboard: Switchboard

    async def use(self, settings: Settings) -> None:
        """Tells each of them, the switchboard last: it acts on them."""
        self.catalog.use(settings)
        self.fit.use(settings)
        self.launcher.use(settings)
        self.described.forget()
        self.switchboard.use(limits(settings), self._card_now)
        await self.fit.measure()

    def _card_now(self, card: ModelCard) -> ModelCard:
        """The card as the settings have it now; of changed files the old one: they take their own turn."""
        try:
            found = self.catalog.find(card.id)
        except (ServiceError, ModelsDirUnreadable):  # its folder is gone, its worker is not
            return card
        return found if found.fingerprint == card.fingerprint else card


def _switchboard(
    settings: Settings, launcher: Launcher, fit: Fit, described: Callable[[ModelCard], Model]
) -> Switchboard:
    cost_file = CostFile(settings, os.environ)
    return Switchboard(
        limits=limits(settings),
        launch=launcher.worker,
        describe=described,
        check_fit=fit.check,
        costs=cost_file.read(),
        remember=cost_file.write,
        foresee=launcher.foresee,
    )


def _app(
    live: LiveSettings,
    keys: Sequence[str],
    catalog: Catalog,
    switchboard: Switchboard,
    data_path: DataPath,
    feed: EventFeed,
    templates: Mapping[Engine, Template],
) -> App:
    settings = live.current
    budget = BodyBudget(each_bytes=settings.max_body_bytes, total_bytes=settings.max_waiting_body_bytes)
    key_check = KeyCheck(keys)
    feedback_after_seconds = settings.load.stream_feedback_after_seconds
    uploads = UploadBudget(
        each_bytes=settings.max_upload_bytes, total_bytes=settings.max_waiting_upload_bytes
    )
    budgets = {BodyForm.JSON: budget, BodyForm.MULTIPART: uploads}
    gateway = Gateway(catalog, switchboard, data_path, budgets, feedback_after_seconds=feedback_after_seconds)
    admin = Admin(live, catalog, switchboard, key_check, budget, feed, templates)
    return App(catalog, switchboard, gateway, key_check, admin.routes() if settings.admin else ())


async def _obey(
    signals: AsyncIterator[signal.Signals],
    server: _Uvicorn,
    settings: Settings,
    switchboard: Switchboard,
    launcher: Launcher,
    feed: EventFeed,
) -> None:
    """The first signal drains, the second one forces; more of them change nothing."""
    async with anyio.create_task_group() as tasks:
        log.info("%s: draining", (await anext(signals)).name)
        server.should_exit = True
        feed.end()
        grace_seconds = settings.stop.shutdown_grace_seconds
        tasks.start_soon(partial(switchboard.shut_down, grace_seconds=grace_seconds))
        log.info("%s: forcing", (await anext(signals)).name)
        server.force_exit = True
        tasks.start_soon(partial(switchboard.shut_down, grace_seconds=0))
        tasks.start_soon(partial(launcher.stop_all, reason="forced", grace_seconds=0))


def _uvicorn_config(settings: Settings, app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=Http1Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(
            settings.stop.shutdown_grace_seconds + settings.stop.grace_seconds + LAST_ANSWERS_SECONDS
        ),
    )
