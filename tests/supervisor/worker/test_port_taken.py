"""Another program takes the worker's port before the worker does."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from local_llm.errors import LoadFailed
from local_llm.switchboard.describe import describe, limits
from local_llm.switchboard.switchboard import Switchboard
from local_llm.worker import launch
from local_llm.worker.launcher import Launcher
from tests.supervisor.worker.stage import fake_card, fake_settings


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many of the next workers get a port on which somebody listens."""
    free_port, left = launch.free_port, [0]
    with socket.create_server((launch.HOST, 0)) as other:

        def port() -> int:
            left[0] -= 1
            return int(other.getsockname()[1]) if left[0] >= 0 else free_port()

        monkeypatch.setattr(launch, "free_port", port)
        yield left


@asynccontextmanager
async def switchboard(tmp_path: Path) -> AsyncIterator[Switchboard]:
    """With real workers of the fake engine."""
    settings = fake_settings(tmp_path)
    async with Launcher(settings) as launcher:
        made = Switchboard(
            limits=limits(settings), launch=launcher.worker, describe=lambda card: describe(card, settings)
        )
        async with made:
            yield made


@pytest.mark.parametrize("kind", ["chat", "embedding"])
async def test_once_is_not_told(tmp_path: Path, taken: list[int], kind: str) -> None:
    """The load is tried once more, on another port."""
    taken[0] = 1
    async with switchboard(tmp_path) as board, board.lease(fake_card(tmp_path, kind=kind)) as lease:
        assert lease.worker.worker_id == "w2"
    assert taken[0] == -1


async def test_twice_is_told(tmp_path: Path, taken: list[int]) -> None:
    """As what it is."""
    taken[0] = 2
    async with switchboard(tmp_path) as board:
        with pytest.raises(LoadFailed, match="Another program took the worker's port first"):
            await board.load(fake_card(tmp_path))
