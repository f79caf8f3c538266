"""What the tests of workers share: settings with the fake engine, cards, and looks at processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.settings import LoadSettings, Settings, StopSettings
from local_llm.worker.launch import Identity
from local_llm.worker.worker import Worker
from tests.fake_engine import fake_engines, write_fake_model


def fake_settings(
    tmp_path: Path,
    *,
    max_seconds: float = 60,
    stall_seconds: float = 60,
    grace_seconds: float = 20,
    unresponsive_seconds: float = 60,
    **more: Any,
) -> Settings:
    """Settings whose engines are the fake one."""
    return Settings(
        engines=fake_engines(tmp_path),
        load=LoadSettings(max_seconds=max_seconds, stall_seconds=stall_seconds),
        stop=StopSettings(grace_seconds=grace_seconds, unresponsive_seconds=unresponsive_seconds),
        **more,
    )


def fake_identity(worker_id: str = "w1", name: str = "org/a") -> Identity:
    """Of a worker that does not exist."""
    card = ModelCard(name, Path("/models") / name, Kind.CHAT, Engine.VLLM, ())
    return Identity(worker_id, card, 1, "key", Path("/nowhere"))


def fake_card(tmp_path: Path, name: str = "org/a", kind: str = "chat", **flags: Any) -> ModelCard:
    """Writes a fake model and describes it as the catalogue would."""
    folder = write_fake_model(tmp_path / "models", name, kind, **flags)
    engine = Engine.VLLM if kind in ("chat", "base") else Engine.TRANSFORMERS
    return ModelCard(name, folder, Kind(kind), engine, (), aliases=(name.split("/")[-1],))


def tree(worker: Worker) -> list[psutil.Process]:
    """The worker's nanny and every process below it."""
    assert worker.nanny_pid is not None
    nanny = psutil.Process(worker.nanny_pid)
    return [nanny, *nanny.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of the processes lives, now."""
    return not any(process.is_running() for process in processes)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what can only be looked at, such as another process; half a minute at most."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await anyio.sleep(0.01)


def segments() -> list[Path]:
    """Shared memory that fake engines of this test run have made."""
    return list(Path("/dev/shm").glob(f"fake-engine-{os.environ['FAKE_ENGINE_MARK']}-*"))
