"""A worker's life, with the real nanny and the fake engine."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from local_llm.engine_settings import EnginesSettings, VllmSettings
from local_llm.errors import LoadFailed
from local_llm.settings import ModelSettings, Settings, StopSettings
from local_llm.worker import worker as worker_module
from local_llm.worker.launcher import Launcher
from local_llm.worker.phases import Phase
from local_llm.worker.worker import Worker
from tests.supervisor.worker.stage import all_gone, fake_card, fake_settings, segments, tree, until


async def ask(worker: Worker, path: str = "/v1/chat/completions") -> httpx.Response:
    """One POST with the worker's own key."""
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {worker.key}"}
        return await client.post(worker.base_url + path, json={"model": worker.card.id}, headers=headers)


@pytest.mark.parametrize("kind", ["chat", "embedding", "reranker"])
async def test_becomes_ready_and_goes(tmp_path: Path, kind: str) -> None:
    """Every kind starts, serves under its id behind its key, and leaves nothing when stopped."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, kind=kind))
        assert worker.phase is Phase.LAUNCHING
        await worker.start()
        assert worker.phase is Phase.READY
        processes = tree(worker)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(worker.base_url + "/health")).status_code == 401
        await worker.stop(reason="enough")
        assert worker.phase is Phase.GONE
        assert all_gone(processes)
        ended = await worker.wait_ended()
        assert (ended.signal, ended.asked) == (signal.SIGTERM, True)
        assert any("serving org/a" in line for line in worker.last_lines())


async def test_key_is_in_no_command_line(tmp_path: Path) -> None:
    """Everybody on the host can read command lines."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.start()
        assert not any(worker.key in " ".join(each.cmdline()) for each in tree(worker))


@pytest.mark.parametrize("flag", ["never_ready", "hang_health", "garbage"])
async def test_load_deadline(tmp_path: Path, flag: str) -> None:
    """Whatever answers wrongly for ever is ended by load.max_seconds, and said so."""
    async with Launcher(fake_settings(tmp_path, max_seconds=1)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, **{flag: True}))
        with pytest.raises(LoadFailed, match=r"not ready within 1 s \(load.max_seconds\)"):
            await worker.start()
        assert worker.phase is Phase.GONE


async def test_death_at_start_is_told(tmp_path: Path) -> None:
    """Exit code, advice and last lines reach the client, and at once."""
    card = fake_card(
        tmp_path, die_at_start=3, say="ValueError: Please pass the argument `trust_remote_code=True`"
    )
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(card)
        with pytest.raises(LoadFailed) as failure, anyio.fail_after(30):
            await worker.start()
        message = failure.value.message
        assert "'org/a'" in message
        assert "ended with exit code 3" in message
        assert "trust_remote_code: true" in message
        assert message.endswith("about to die\ndying as told")
        assert (await worker.wait_ended()).asked is False


async def test_wrong_name_is_refused(tmp_path: Path) -> None:
    """A worker that serves another model is not the one that was asked for."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        with pytest.raises(LoadFailed, match="serves 'somebody-else' instead"):
            await launcher.worker(fake_card(tmp_path, wrong_name=True)).start()


async def test_missing_python_is_named(tmp_path: Path) -> None:
    """An engine's Python that does not exist is said to be missing, not to have exited with 127."""
    nowhere = tmp_path / "nowhere" / "python"
    settings = Settings(engines=EnginesSettings(vllm=VllmSettings(python=nowhere)))
    async with Launcher(settings) as launcher:
        with pytest.raises(LoadFailed, match=f"could not be started .*{nowhere}: No such file"):
            await launcher.worker(fake_card(tmp_path)).start()


async def test_broken_nanny_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor's Python that cannot run the nanny: the log tells why."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named local_llm_worker.nanny'; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    async with Launcher(Settings()) as launcher:
        with pytest.raises(
            LoadFailed, match=r"(?s)its nanny ended first\).*log:\nNo module named"
        ) as failure:
            await launcher.worker(fake_card(tmp_path)).start()
    assert "Install local-llm-interface" in failure.value.message


async def test_sigterm_ignored(tmp_path: Path) -> None:
    """After its grace a worker is killed."""
    async with Launcher(fake_settings(tmp_path, grace_seconds=0.2)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, ignore_sigterm=True))
        await worker.start()
        await worker.stop(reason="enough")
        assert (await worker.wait_ended()).signal == signal.SIGKILL


async def test_changed_settings_of_an_end_hold_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For workers that were made before the change."""
    waited: list[float] = []

    async def wait(_footprint: object, seconds: float, _wanted_bytes: object) -> bool:
        waited.append(seconds)
        return True

    monkeypatch.setattr(worker_module, "wait_memory_back", wait)
    async with Launcher(fake_settings(tmp_path, grace_seconds=600)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, ignore_sigterm=True))
        await worker.start()
        stop = StopSettings(grace_seconds=0.2, memory_back_seconds=7)
        launcher.use(fake_settings(tmp_path).model_copy(update={"stop": stop}))
        with anyio.fail_after(30):
            stopping = asyncio.ensure_future(worker.stop(reason="enough"))
            await worker.wait_ended()
        await stopping
        assert (await worker.wait_ended()).signal == signal.SIGKILL
        await worker.memory_back(lambda: None)
        assert waited == [7]


async def test_grace_is_given(tmp_path: Path) -> None:
    """A worker that takes its time within the grace leaves by itself."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, stop_seconds=0.3))
        await worker.start()
        await worker.stop(reason="enough")
        assert (await worker.wait_ended()).exit_code == 0


async def test_stopped_process_is_killed(tmp_path: Path) -> None:
    """SIGSTOP keeps a worker from hearing SIGTERM, and does not save it."""
    async with Launcher(fake_settings(tmp_path, grace_seconds=0.2)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.start()
        program = tree(worker)[1]
        program.suspend()
        await until(lambda: program.status() == psutil.STATUS_STOPPED)
        await worker.stop(reason="enough")
        assert (await worker.wait_ended()).signal == signal.SIGKILL


@pytest.mark.parametrize("how", ["stop", "crash"])
async def test_leaked_child_and_shared_memory_go(tmp_path: Path, how: str) -> None:
    """A daemon that escaped the session and a segment nobody unlinked are gone with the worker."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, leak_child=True, leak_shm=True))
        await worker.start()
        processes = tree(worker)
        assert len(processes) == 3
        assert len(segments()) == 1
        if how == "crash":
            await until_noted(launcher)
            processes[1].kill()
            ended = await worker.wait_ended()
            assert (ended.signal, ended.asked) == (signal.SIGKILL, False)
        await worker.stop(reason="enough")
        assert all_gone(processes)
        assert not segments()


async def until_noted(launcher: Launcher) -> None:
    """Until the nanny has had its look at the shared memory."""
    await until(lambda: any(launcher._folder.path.glob("*/.shared-memory")))


@pytest.mark.parametrize("when", ["loading", "ready"])
async def test_nanny_killed(tmp_path: Path, when: str) -> None:
    """SIGKILL to the nanny itself: the worker's tree, folder and segments go all the same."""
    flags = {"never_ready": True} if when == "loading" else {}
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, leak_child=True, leak_shm=True, **flags))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start_whatever_comes, worker)
            await until_noted(launcher)
            await until(lambda: worker.phase is (Phase.READY if when == "ready" else Phase.LOADING))
            processes = tree(worker)
            assert len(processes) == 3
            processes[0].kill()
            assert (await worker.wait_ended()).signal == signal.SIGKILL
        await worker.stop(reason="enough")
        assert worker.phase is Phase.GONE
        assert all_gone(processes)
        assert not segments()
        assert [each.name for each in launcher._folder.path.iterdir()] == ["supervisor.lock"]


async def start_whatever_comes(worker: Worker) -> None:
    """Starts it; a failure is the test's own doing."""
    with suppress(LoadFailed):
        await worker.start()


async def test_strays_spare_other_workers(tmp_path: Path) -> None:
    """Sweeping after one killed nanny does not touch another worker, or its nanny."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        victim = launcher.worker(fake_card(tmp_path, "victim", leak_child=True))
        bystander = launcher.worker(fake_card(tmp_path, "bystander"))
        await victim.start()
        await bystander.start()
        tree(victim)[0].kill()
        await victim.stop(reason="enough")
        assert (await ask(bystander)).headers["x-fake-model"] == "bystander"


async def test_log_flood_is_bounded(tmp_path: Path) -> None:
    """A hundred megabytes without a line's end cost one cut line."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, fill_log=100_000_000))
        before = psutil.Process().memory_info().rss
        await worker.start()
        assert psutil.Process().memory_info().rss - before < 32_000_000
        lines = worker.last_lines(200)
        assert max(map(len, lines)) <= 2_000


async def test_stop_during_start(tmp_path: Path) -> None:
    """A worker that is stopped while it loads says so to whoever started it."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, never_ready=True))
        start = asyncio.ensure_future(worker.start())
        await until_serving(worker)
        await worker.stop(reason="enough")
        with pytest.raises(LoadFailed, match="stopped while it was loading"):
            await start
        assert worker.phase is Phase.GONE


async def until_serving(worker: Worker) -> None:
    """Until the worker's program has said that it listens."""
    await until(lambda: any("serving" in line for line in worker.last_lines()))


async def test_stop_at_the_first_moment(tmp_path: Path) -> None:
    """Between the call of start and the nanny's birth there is nothing to signal yet."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        start = asyncio.ensure_future(worker.start())
        await asyncio.sleep(0)
        await worker.stop(reason="enough")
        with pytest.raises(LoadFailed, match="stopped while it was loading"):
            await start


async def test_stop_before_start(tmp_path: Path) -> None:
    """A worker that never began is gone at once."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.stop(reason="never mind")
        assert worker.phase is Phase.GONE


async def test_two_stops_at_once(tmp_path: Path) -> None:
    """Both return when it is gone, and the shorter grace counts."""
    async with Launcher(fake_settings(tmp_path, grace_seconds=600)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, ignore_sigterm=True))
        await worker.start()
        async with anyio.create_task_group() as stops:
            stops.start_soon(lambda: worker.stop(reason="one"))
            stops.start_soon(lambda: worker.stop(reason="two", grace_seconds=0.2))
        assert worker.phase is Phase.GONE


@pytest.mark.parametrize("cancel", ["anyio", "asyncio"])
async def test_cancelled_start_leaves_nothing(tmp_path: Path, cancel: str) -> None:
    """Whoever gives up a load gives up the worker."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, never_ready=True, ignore_sigterm=True))
        if cancel == "anyio":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.start)
                await until_serving(worker)
                tasks.cancel_scope.cancel()
        else:
            start = asyncio.ensure_future(worker.start())
            await until_serving(worker)
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
        assert worker.phase is Phase.GONE


async def test_cancelled_stop_stops(tmp_path: Path) -> None:
    """A stop that is cancelled is carried out to its end before the cancellation goes on."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, stop_seconds=0.3))
        await worker.start()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.stop(reason="enough")
        assert worker.phase is Phase.GONE


async def test_leaving_the_launcher_stops(tmp_path: Path) -> None:
    """What runs is stopped politely."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        polite = launcher.worker(fake_card(tmp_path, "polite"))
        await polite.start()
    assert (await polite.wait_ended()).signal == signal.SIGTERM


async def test_leaving_the_launcher_in_haste_kills(tmp_path: Path) -> None:
    """With an exception on its way nobody waits out a grace, and the exception arrives as it was."""
    workers: list[Worker] = []

    async def fail_in_the_middle() -> None:
        async with Launcher(fake_settings(tmp_path, grace_seconds=600)) as launcher:
            workers.append(launcher.worker(fake_card(tmp_path, ignore_sigterm=True)))
            await workers[0].start()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail_in_the_middle()
    assert workers[0].phase is Phase.GONE


async def test_cancelling_everything_kills(tmp_path: Path) -> None:
    """A cancelled server takes its workers along at once."""
    workers: list[Worker] = []

    async def serve() -> None:
        async with Launcher(fake_settings(tmp_path, grace_seconds=600)) as launcher:
            workers.append(launcher.worker(fake_card(tmp_path, ignore_sigterm=True)))
            await workers[0].start()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await until(lambda: bool(workers) and workers[0].phase is Phase.READY)
        tasks.cancel_scope.cancel()
    assert workers[0].phase is Phase.GONE


async def test_crash_mid_life_is_told(tmp_path: Path) -> None:
    """`wait_ended` tells of a death nobody asked for; then everything goes by itself."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, crash_after=1))
        await worker.start()
        assert (await ask(worker)).status_code == 200
        with anyio.fail_after(30):
            ended = await worker.wait_ended()
        assert re.fullmatch(r"was killed by SIGKILL: .*the host had \d+\.\d GiB left.*", ended.in_words())
        await worker.stop(reason="enough")


async def test_settings_reach_the_program(tmp_path: Path) -> None:
    """Arguments and environment of the settings go where they belong."""
    args = ModelSettings(args=("--status", "418"))
    async with Launcher(fake_settings(tmp_path, models={"org/*": args})) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        await worker.start()
        assert (await ask(worker)).status_code == 418


async def test_orphan_zombies_are_reaped(tmp_path: Path) -> None:
    """As PID 1 of a container the supervisor gets zombies that nobody else reaps."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        # The shell ends at once; what it started then belongs to this process, and ends at its own time.
        shell = await anyio.run_process(["sh", "-c", "setsid sleep 0.1 & echo $!"])
        orphan = psutil.Process(int(shell.stdout))
        await until(lambda: orphan.status() == psutil.STATUS_ZOMBIE)
        await launcher._strays.reap_orphans()
        assert not psutil.pid_exists(orphan.pid)


async def test_a_nanny_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGSTOP to the nanny: after its time it is killed, and the supervisor sweeps."""
    monkeypatch.setattr("local_llm.worker.worker.GIVE_UP_SECONDS", 0.5)
    async with Launcher(fake_settings(tmp_path, grace_seconds=0.2)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, leak_child=True))
        await worker.start()
        processes = tree(worker)
        processes[0].suspend()
        with anyio.fail_after(30):
            await worker.stop(reason="enough")
        assert all_gone(processes)
    assert "is not done and is killed" in caplog.text


async def test_what_cannot_be_killed_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Uninterruptible sleep in a driver, say: it is reported, and the server goes on."""
    async with Launcher(fake_settings(tmp_path)) as launcher:
        worker = launcher.worker(fake_card(tmp_path, leak_child=True))
        await worker.start()
        processes = tree(worker)
        with monkeypatch.context() as patch:
            patch.setattr("local_llm.worker.worker.GIVE_UP_SECONDS", 0.5)
            # The kernel does not let it die.
            patch.setattr("local_llm.worker.strays._end", lambda strays, spare_trackers: set())
            processes[0].kill()
            with anyio.fail_after(30):
                await worker.stop(reason="enough")
            assert worker.phase is Phase.GONE
            assert str(processes[-1].pid) in caplog.records[-1].getMessage().partition("given up: ")[2]
        await launcher._strays.sweep(give_up_seconds=30)
        assert all_gone(processes)
