"""A ready worker that answers no more."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from local_llm.worker import pulse
from local_llm.worker.launcher import Launcher
from local_llm.worker.phases import Phase
from tests.supervisor.worker.stage import all_gone, fake_card, fake_settings, tree
from tests.supervisor.worker.test_worker import ask


@pytest.fixture(autouse=True)
def _frequent_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_EVERY_SECONDS", 0.05)


async def test_a_stopped_worker_is_killed(tmp_path: Path) -> None:
    """SIGSTOP: its port still takes connections, and nobody answers them."""
    async with Launcher(fake_settings(tmp_path, unresponsive_seconds=0.8)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, leak_child=True))
        await worker.start()
        processes = tree(worker)
        processes[1].suspend()
        with anyio.fail_after(30):
            ended = await worker.wait_ended()
        words = "did not answer GET /health for 0.8 s (stop.unresponsive_seconds) and was killed"
        assert ended.in_words() == words
        assert not ended.asked
        await worker.stop(reason="it crashed")
        assert all_gone(processes)


async def test_a_short_pause_is_forgiven(tmp_path: Path) -> None:
    """One probe that goes unanswered proves nothing."""
    async with Launcher(fake_settings(tmp_path, unresponsive_seconds=60)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.start()
        process = tree(worker)[1]
        process.suspend()
        with anyio.move_on_after(0.5):
            await worker.wait_ended()
        process.resume()
        assert (await ask(worker)).status_code == 200
        assert worker.phase is Phase.READY


async def test_never(tmp_path: Path) -> None:
    """With 0 nobody probes."""
    async with Launcher(fake_settings(tmp_path, unresponsive_seconds=0)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, sick_after=0 + 1))
        await worker.start()
        await ask(worker)
        with anyio.move_on_after(0.5):
            await worker.wait_ended()
        assert worker.phase is Phase.READY


async def test_a_changed_setting_holds_at_once(tmp_path: Path) -> None:
    """For a worker that is ready already, and although nobody probed it until now."""
    async with Launcher(fake_settings(tmp_path, unresponsive_seconds=0)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.start()
        tree(worker)[1].suspend()
        launcher.use(fake_settings(tmp_path, unresponsive_seconds=0.8))
        with anyio.fail_after(30):
            ended = await worker.wait_ended()
        assert "for 0.8 s (stop.unresponsive_seconds)" in ended.in_words()


async def test_a_dead_engine_is_believed(tmp_path: Path) -> None:
    """vLLM's API server outlives its engine, and says so: 503."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, sick_after=1))
        await worker.start()
        await ask(worker)
        with anyio.fail_after(30):
            ended = await worker.wait_ended()
        assert ended.in_words() == "said that its engine is dead (GET /health: 503) and was killed"


async def test_a_busy_worker_lives(tmp_path: Path) -> None:
    """Answering takes longer than it may be silent, and its health is fine all the while."""
    async with Launcher(fake_settings(tmp_path, unresponsive_seconds=1)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, answer_seconds=2.5))
        await worker.start()
        assert (await ask(worker)).status_code == 200
