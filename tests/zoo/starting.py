"""Starts specimens on real vLLM, at small sizes, with the flags that the project chooses.

All are forked from one warm template, one after the other. Weights are random (`--load-format dummy`);
everything else is as the supervisor would do it: the catalogue's card, the command line, the nanny.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from local_llm.catalog.card import Engine, ModelCard
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.engine_settings import EnginesSettings, VllmSettings
from local_llm.settings import Settings
from local_llm.worker.command import launch
from local_llm.worker.environment import shared_environment
from local_llm.worker.launch import Identity
from local_llm.worker.strays import adopt_orphans
from tests.workers.template_stage import ROOT, Nanny, Template, reap, template
from tests.zoo.smaller import smaller
from tests.zoo.specimen import Specimen
from tests.zoo.tokenizer import letters

START_SECONDS = 90.0
_ARGS = ("--load-format", "dummy", "--max-num-seqs", "2")
_TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
_TELLING = re.compile(r"\b\w*(?:Error|Exception)\b: .+")


class NotStarted(Exception):
    """A specimen's server did not come up, or did not answer; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a started model said.

    Attributes:
        text: the chat's, thoughts included.
        tool_status: HTTP status of the same with a tool and `tool_choice: auto`; None where no parser of
            tool calls was chosen, so that vLLM must refuse.
        seconds: from the fork to the first answer.
    """

    text: str
    tool_status: int | None
    seconds: float


class Starter:
    """Starts specimens, one at a time.

    Args:
        warm: a template of vLLM.
        folder: to write the models in.
        settings: of the supervisor.
    """

    def __init__(self, warm: Template, folder: Path, settings: Settings) -> None:
        self._warm = warm
        self._folder = folder
        self._settings = settings

    def ask(self, specimen: Specimen) -> Answer:
        """Starts a specimen, asks it, stops it.

        Raises:
            NotStarted: it did not come up within `START_SECONDS`, or did not answer.
        """
        began = time.perf_counter()
        card = self._card(specimen)
        nanny = self._warm.fork()
        identity = replace(Identity.fresh(specimen.id, card, nanny.temporary), key="a-key")
        started = launch(identity, self._settings, devices=(), environment=dict(os.environ))
        module, *arguments = started.argv[2:]
        nanny.launch(module, *arguments, env=dict(started.env))
        with ThreadPoolExecutor(1) as threads:
            log = threads.submit(nanny.log_to_the_end)  # a full pipe would stop the worker
            try:
                with _client(identity) as client:
                    _until_healthy(client, log, began + START_SECONDS)
                    text = _chat(client, specimen.id)
                    seconds = time.perf_counter() - began
                    takes_tools = "--tool-call-parser" in arguments
                    return Answer(text, _tool_status(client, specimen.id) if takes_tools else None, seconds)
            except httpx.TransportError as error:
                raise NotStarted(f"it fell silent: {type(error).__name__}") from error
            finally:
                _end(nanny, log)

    def _card(self, specimen: Specimen) -> ModelCard:
        said: Any = specimen.files["config.json"]
        files = {**specimen.files, "config.json": smaller(said)}
        path = str(replace(specimen, files=files).write(self._folder))
        card = examine_location(Location(specimen.id, path, (path,)), self._settings).outcome
        if not isinstance(card, ModelCard):
            raise NotStarted(f"the catalogue refuses it: {card}")
        return card


@contextmanager
def starter(specimens: Iterable[Specimen], folder: Path) -> Iterator[Starter]:
    """A starter whose template has imported what `specimens` need; this process adopts its nannies."""
    adopt_orphans()
    settings = Settings(engines=EnginesSettings(vllm=VllmSettings(args=_ARGS, cpu_kv_cache_gib=1)))
    env = shared_environment(Engine.VLLM, settings, (), dict(os.environ))
    with template("vllm", _architectures(specimens), folder, {**env, "PYTHONPATH": str(ROOT)}) as warm:
        yield Starter(warm, folder / "models", settings)


def _architectures(specimens: Iterable[Specimen]) -> Sequence[str]:
    configs: list[Any] = [each.files["config.json"] for each in specimens]
    return list(dict.fromkeys(each["architectures"][0] for each in configs))


def _client(identity: Identity) -> httpx.Client:
    return httpx.Client(
        base_url=identity.base_url, headers={"authorization": f"Bearer {identity.key}"}, timeout=30
    )


def _until_healthy(client: httpx.Client, log: Future[str], deadline: float) -> None:
    """Polls; the end of the log is the end of the worker."""
    while time.perf_counter() < deadline:
        if log.done():
            raise NotStarted(_reason(log.result()))
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise NotStarted(f"it was not up within {START_SECONDS:.0f} s")


def _chat(client: httpx.Client, model: str) -> str:
    """A few letters: random weights would choose markers, which are no text."""
    body = {**_question(model), "allowed_token_ids": letters(), "max_tokens": 4}
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        raise NotStarted(f"a chat is answered with {answer.status_code}: {answer.text[:200]}")
    message = answer.json()["choices"][0]["message"]
    return f"{message.get('reasoning') or ''}{message.get('content') or ''}"


def _tool_status(client: httpx.Client, model: str) -> int:
    body = {**_question(model), "tools": [_TOOL], "tool_choice": "auto", "max_tokens": 4}
    return client.post("/v1/chat/completions", json=body).status_code


def _question(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello?"}], "temperature": 0}


def _end(nanny: Nanny, log: Future[str]) -> None:
    if not log.done():
        nanny.stop()
    log.result()
    reap(nanny)


def _reason(log: str) -> str:
    """The line that tells most: the first error that is not about another process's error."""
    found: list[str] = [
        each for each in _TELLING.findall(log) if "initialization failed" not in each and "ulimit" not in each
    ]
    return found[0][:200] if found else "its log tells no reason"
