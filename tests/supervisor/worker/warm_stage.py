"""What the tests of warm templates share: settings with the fake one, and looks at processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx
import psutil

from benchmarks.chaos import faults
from local_llm.catalog.card import Engine
from local_llm.engine_settings import EnginesSettings, TransformersSettings, VllmSettings
from local_llm.settings import Settings
from local_llm.worker.launcher import Launcher
from local_llm.worker.template import Ready
from local_llm.worker.worker import Worker
from tests.fake_engine import fake_python
from tests.supervisor.worker.stage import fake_settings, until


def warm_settings(
    tmp_path: Path,
    manner: str = "",
    *,
    warm: Literal["auto", "on", "off"] = "on",
    env: dict[str, str] | None = None,
    **more: Any,
) -> Settings:
    """Settings whose engines are the fake one, with templates.

    Args:
        tmp_path: of the test.
        manner: of vLLM's template to misbehave (`tests/fake_engine/template.py`).
        warm: of both engines.
        env: of vLLM.
        more: for `fake_settings`.
    """
    python = fake_python(tmp_path)
    vllm = VllmSettings(python=python, warm=warm, env={"FAKE_TEMPLATE": manner, **(env or {})})
    engines = EnginesSettings(vllm=vllm, transformers=TransformersSettings(python=python, warm=warm))
    return fake_settings(tmp_path, **more).model_copy(update={"engines": engines})


def templates() -> list[psutil.Process]:
    """The template processes of this process."""
    return faults.templates(os.getpid())


async def the_template() -> psutil.Process:
    """The only one, as soon as it is there, ready or not."""
    await until(lambda: len(templates()) == 1)
    return templates()[0]


async def ready_template(launcher: Launcher, engine: Engine = Engine.VLLM) -> psutil.Process:
    """The only one, as soon as it can be forked."""

    def is_ready() -> bool:
        template = launcher.templates.all.get(engine)
        return template is not None and isinstance(template.state, Ready)

    await until(is_ready)
    return await the_template()


def is_warm(worker: Worker) -> bool:
    """Whether it was forked from a template, by its own word."""
    return "forked from a template" in worker.last_lines(200)


async def serves(worker: Worker) -> bool:
    """Whether it answers, as its model."""
    path = "/v1/chat/completions" if worker.card.engine is Engine.VLLM else "/v1/embeddings"
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {worker.key}"}
        answer = await client.post(worker.base_url + path, json={"model": worker.card.id}, headers=headers)
    return answer.headers["x-fake-model"] == worker.card.id


async def kill(process: psutil.Process) -> None:
    """SIGKILL; returns when it is dead and reaped."""
    process.kill()
    with anyio.fail_after(30):
        while process.is_running():  # noqa: ASYNC110 - another process: there is no event to wait for
            await anyio.sleep(0.01)
