"""A request's way: read, route, wait for its worker, forward, account. Raw ASGI."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import Receive, Scope

from local_llm.catalog.card import ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.errors import ServiceError
from local_llm.gateway.answer import Answer, Broken
from local_llm.gateway.endpoints import BodyForm, Endpoint
from local_llm.gateway.feedback import Feedback
from local_llm.gateway.forward import DataPath, NothingSent
from local_llm.gateway.request import BodyBudget, ClientLeft, HeldBody
from local_llm.http1 import Exchange
from local_llm.switchboard.switchboard import Switchboard

log = logging.getLogger(__name__)
access_log = logging.getLogger("local_llm.access")

PLAIN_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

LONGEST_NAME_LOGGED = 128
"""A client may put anything into `model`, and as much of it as a body holds."""

CLIENT_LEFT_STATUS = 499
"""In the log only: nginx's number for a client that closed its connection first."""


@dataclass(slots=True)
class Account:
    """What is logged of a request. Never its content, never a key."""

    request_id: str
    began_at: float = field(default_factory=time.monotonic)
    model: str | None = None
    worker: str | None = None
    error: str | None = None
    waits_since: float | None = None
    waited_seconds: float = 0.0
    switch_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Passage:
    """One request on its way to its worker, with all that goes along."""

    scope: Scope
    held: HeldBody
    answer: Answer
    account: Account
    feedback: Feedback


class Gateway:
    """Answers the endpoints that workers answer."""

    def __init__(
        self,
        catalog: Catalog,
        switchboard: Switchboard,
        data_path: DataPath,
        budgets: Mapping[BodyForm, BodyBudget],
        *,
        feedback_after_seconds: float,
    ) -> None:
        self._catalog = catalog
        self._switchboard = switchboard
        self._data_path = data_path
        self._budgets = budgets
        self._feedback_after_seconds = feedback_after_seconds

    async def handle(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> None:
        """Serves one request from its first byte to its last, and answers by the scope's exchange."""
        exchange: Exchange = scope["state"]["exchange"]
        account = Account(request_id(scope))
        answer = Answer(exchange, account.request_id)
        outcome: int | None = None
        try:
            try:
                with self._budgets[endpoint.body].holding() as held:
                    await held.read(scope, receive, has_come=exchange.body_has_come)
                    with _WhileClientStays(exchange):
                        await self._serve(endpoint, scope, held, answer, account)
            except ClientLeft:
                outcome = CLIENT_LEFT_STATUS
            except ServiceError as error:
                account.error = error.code
                await answer.fail(error, endpoint)
            except Exception:
                account.error = ServiceError.code
                log.exception("request %s failed", account.request_id)
                await answer.fail(
                    ServiceError("An internal error. The server's log has the details."), endpoint
                )
        except Broken as broken:
            log.warning("request %s: answer cut short: %s", account.request_id, broken)
            # A visible break. Merely returning would be one too, and a mistake in uvicorn's eyes.
            exchange.abort()
            await _until_client_left(receive)
        finally:
            _log_access(endpoint, account, answer, outcome)

    async def _serve(
        self, endpoint: Endpoint, scope: Scope, held: HeldBody, answer: Answer, account: Account
    ) -> None:
        asked = held.asked()
        account.model = asked.model[:LONGEST_NAME_LOGGED]
        card = self._catalog.find(asked.model)
        account.model = card.id
        endpoint.check(card)
        card = card.runs_as
        after_seconds = self._feedback_after_seconds if asked.stream and endpoint.streams else 0
        feedback = Feedback(answer, lambda: self._switchboard.waiting_in_words(card), after_seconds)
        one = _Passage(scope, held, answer, account, feedback)
        try:
            await self._lease_and_forward(card, one)
        except NothingSent:  # the worker died between its last sign of life and this request
            await self._lease_and_forward(card, one)
        finally:
            await feedback.end()

    async def _lease_and_forward(self, card: ModelCard, one: _Passage) -> None:
        one.feedback.begin()
        one.account.waits_since = time.monotonic()
        async with self._switchboard.lease(card) as lease:
            await one.feedback.end()
            one.account.waits_since = None
            one.account.worker = lease.worker.worker_id
            one.account.waited_seconds += lease.waited_seconds
            one.account.switch_seconds += lease.switch_seconds
            await self._data_path.forward(one.scope, one.held, lease, one.answer)


class _WhileClientStays:
    """Cancels what is inside, in this task, when the client leaves. No cancel scope: two a request would
    take as long as its parsing.

    Raises:
        ClientLeft: it left.
    """

    __slots__ = ("_exchange", "_left", "_task")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._left = False

    def __enter__(self) -> None:
        if self._exchange.left:
            raise ClientLeft
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - uvicorn makes one for each request
        self._task = task
        self._exchange.when_left(self._leave)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._exchange.forget(self._leave)
        if self._left and kind is asyncio.CancelledError:
            if sys.version_info >= (3, 11):
                self._task.uncancel()
            raise ClientLeft

    def _leave(self) -> None:
        self._left = True
        self._task.cancel()


async def _until_client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def request_id(scope: Scope) -> str:
    """The client's X-Request-Id if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if PLAIN_ID.fullmatch(given):
                return given
    return f"{random.getrandbits(128):032x}"


def _log_access(endpoint: Endpoint, account: Account, answer: Answer, outcome: int | None) -> None:
    if not access_log.isEnabledFor(logging.INFO):
        return
    now = time.monotonic()
    waited_seconds = account.waited_seconds
    if account.waits_since is not None:  # in vain: refused, or the client left
        waited_seconds += now - account.waits_since
    first_byte = None if answer.first_byte_at is None else round(answer.first_byte_at - account.began_at, 4)
    access_log.info(
        "%s",
        endpoint.path,
        extra={
            "fields": {
                "request_id": account.request_id,
                "model": account.model,
                "worker": account.worker,
                "status": outcome or answer.status,
                "error": account.error,
                "wait_seconds": round(waited_seconds, 4),
                "switch_seconds": round(account.switch_seconds, 4),
                "first_byte_seconds": first_byte,
                "total_seconds": round(now - account.began_at, 4),
                "sent_bytes": answer.sent_bytes,
            }
        },
    )
