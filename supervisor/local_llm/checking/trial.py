"""One start on trial: the model is loaded, asked one thing, and stopped; each phase is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
import httpx

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed
from local_llm.examples import Example, example
from local_llm.settings import Settings
from local_llm.worker.launcher import Launcher
from local_llm.worker.worker import Worker

ANSWER_SECONDS = 300.0
"""For one short answer of a model that computes on the CPU."""

_SHOW_EVERY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Step:
    """What took how long.

    Attributes:
        name: such as ``weights``.
        seconds: that it took.
    """

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of it.

    Attributes:
        steps: in their order, those of the load first.
        asked: the endpoint.
        answer: in words; None if there was none.
        failure: what went wrong; None if nothing did.
    """

    steps: tuple[Step, ...]
    asked: str
    answer: str | None
    failure: str | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.failure is None,
            "steps": [{"name": each.name, "seconds": round(each.seconds, 2)} for each in self.steps],
            "asked": self.asked,
            "answer": self.answer,
            "failure": self.failure,
        }


async def try_out(
    card: ModelCard, settings: Settings, environment: Mapping[str, str], show: Callable[[str], None]
) -> Trial:
    """Starts a worker of the model, asks it, and stops it. Nothing of it is left afterwards.

    Args:
        card: the model.
        settings: all of them. The start is a cold one, whatever they say: a template for one start is waste.
        environment: what the worker inherits.
        show: called with what is being done, several times a second.
    """
    asked = example(card.kind)
    answer: str | None = None
    async with Launcher(_cold(settings), environment) as launcher:
        worker = launcher.worker(card.runs_as)
        steps, failure = await _load(worker, show)
        if failure is None:
            show(f"asking {asked.path}")
            began_at = time.monotonic()
            answer, failure = await _ask(worker, card.id, asked)
            steps.append(Step("answer", time.monotonic() - began_at))
        show("stopping")
        began_at = time.monotonic()
        await worker.stop(reason="the trial is over")
        steps.append(Step("stop", time.monotonic() - began_at))
    return Trial(tuple(steps), asked.path, answer, failure)


def _cold(settings: Settings) -> Settings:
    engines = settings.engines
    return settings.model_copy(
        update={
            "engines": engines.model_copy(
                update={
                    "vllm": engines.vllm.model_copy(update={"warm": "off"}),
                    "transformers": engines.transformers.model_copy(update={"warm": "off"}),
                }
            )
        }
    )


async def _load(worker: Worker, show: Callable[[str], None]) -> tuple[list[Step], str | None]:
    """The phases that it went through, and what went wrong."""
    failure: str | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_show_progress, worker, show)
        try:
            await worker.start()
        except LoadFailed as failed:
            failure = failed.message
        tasks.cancel_scope.cancel()
    return [Step(phase.value, seconds) for phase, seconds in worker.load_phases], failure


async def _show_progress(worker: Worker, show: Callable[[str], None]) -> None:
    while True:
        show(f"loading: {worker.progress.in_words()}")
        await anyio.sleep(_SHOW_EVERY_SECONDS)


async def _ask(worker: Worker, name: str, asked: Example) -> tuple[str | None, str | None]:
    """The answer in words, or what went wrong."""
    headers = {"authorization": f"Bearer {worker.key}"}
    # trust_env: HTTP_PROXY is not for the loopback.
    async with httpx.AsyncClient(
        base_url=worker.base_url, headers=headers, timeout=ANSWER_SECONDS, trust_env=False
    ) as client:
        try:
            if asked.file is None:
                answer = await client.post(asked.path, json={"model": name, **asked.body, **asked.limits})
            else:
                form = {"model": name, **asked.body}
                answer = await client.post(asked.path, data=form, files={"file": asked.file})
        except httpx.HTTPError as error:
            return None, f"{asked.path} was not answered: {error or type(error).__name__}"
    try:
        if answer.status_code == HTTPStatus.OK:
            return asked.in_words(answer.json()), None
    except (ValueError, KeyError, IndexError, TypeError):
        return None, f"{asked.path} answered something else: {answer.text[:500]}"
    return None, f"{asked.path} answered {answer.status_code}: {answer.text[:500]}"
