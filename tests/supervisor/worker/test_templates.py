"""Warm templates, real ones of the fake engine: made, forked, killed, misbehaving, and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from local_llm import gpu
from local_llm.catalog.card import Engine
from local_llm.engine_settings import EnginesSettings, VllmSettings
from local_llm.errors import LoadFailed, WarmStartFailed
from local_llm.settings import Settings
from local_llm.worker.launch import Launch
from local_llm.worker.launcher import Launcher
from local_llm.worker.nanny_process import ForkedNanny
from local_llm.worker.phases import Phase
from local_llm.worker.template import Gone, Making
from local_llm.worker.templates import MAKING_SECONDS, Templates
from local_llm.worker.worker import Worker
from tests.supervisor.worker.stage import all_gone, fake_card, tree, until
from tests.supervisor.worker.warm_stage import (
    is_warm,
    kill,
    ready_template,
    serves,
    templates,
    the_template,
    warm_settings,
)

GIB = 1 << 30


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "local_llm.worker")


def said(caplog: pytest.LogCaptureFixture, beginning: str, level: int = logging.WARNING) -> list[str]:
    """What was logged of templates, by its beginning and level."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith(beginning) and record.levelno == level
    ]


async def started(launcher: Launcher, tmp_path: Path, name: str = "org/a", **more: Any) -> Worker:
    """A new worker that is ready and answers."""
    worker = launcher.worker(fake_card(tmp_path, name, **more))
    with anyio.fail_after(60):
        await worker.start()
    assert await serves(worker)
    return worker


@pytest.mark.parametrize(("kind", "engine"), [("chat", Engine.VLLM), ("embedding", Engine.TRANSFORMERS)])
async def test_forked_worker(tmp_path: Path, kind: str, engine: Engine) -> None:
    """It answers, its nanny is the supervisor's child, and it goes without a trace; the template stays."""
    async with Launcher(warm_settings(tmp_path)) as launcher:
        worker = await started(launcher, tmp_path, kind=kind, leak_child=True)
        assert is_warm(worker)
        processes = tree(worker)
        assert processes[0].ppid() == os.getpid()
        assert len(processes) == 3
        template = await ready_template(launcher, engine)
        assert template.ppid() == os.getpid()
        assert template.children() == []
        await worker.stop(reason="enough")
        assert all_gone(processes)
        ended = await worker.wait_ended()
        assert (ended.signal, ended.asked) == (signal.SIGTERM, True)
        assert templates() == [template]


async def test_one_template_serves_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Workers that start at the same moment, and one that starts later, come from the same one."""
    async with Launcher(warm_settings(tmp_path, "slow")) as launcher:
        workers: list[Worker] = []

        async def start(name: str) -> None:
            workers.append(await started(launcher, tmp_path, name))

        async with anyio.create_task_group() as starts:
            for name in ("a", "b", "c"):
                starts.start_soon(start, name)
        template = await the_template()
        await start("d")
        assert all(is_warm(worker) for worker in workers)
        assert len({worker.nanny_pid for worker in workers}) == 4
        assert await the_template() == template
        assert len(said(caplog, "warm template ready", logging.INFO)) == 1


async def test_killed_template_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Workers live on; the next one comes from a new template, until three have died."""
    async with Launcher(warm_settings(tmp_path)) as launcher:
        seen: set[psutil.Process] = set()
        workers: list[Worker] = []
        for name in ("a", "b", "c"):
            workers.append(await started(launcher, tmp_path, name))
            seen.add(await ready_template(launcher))
            await kill_template(launcher)
        assert len(seen) == 3
        workers.append(await started(launcher, tmp_path, "d"))
        assert [is_warm(worker) for worker in workers] == [True, True, True, False]
        assert all([await serves(worker) for worker in workers])
        assert len(said(caplog, "the warm template of vllm is made anew", logging.INFO)) == 2
        assert len(said(caplog, "no warm template of vllm, its workers start cold: its process ended")) == 1


async def kill_template(launcher: Launcher) -> None:
    """SIGKILL to the only one; returns when that was noticed."""
    template = launcher.templates.all[Engine.VLLM]
    (await the_template()).kill()
    await until(lambda: launcher.templates.all.get(Engine.VLLM) is not template)


@pytest.mark.parametrize("manner", ["endless", "helper"])
async def test_killed_in_the_making(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    """Who waits for it starts cold, and what it had started itself goes as well."""
    monkeypatch.setattr("local_llm.worker.template._END_SECONDS", 0.5)
    async with Launcher(warm_settings(tmp_path, manner)) as launcher, anyio.create_task_group() as tasks:
        worker = launcher.worker(fake_card(tmp_path))
        tasks.start_soon(worker.start)
        template = await the_template()
        helpers = 1 if manner == "helper" else 0
        await until(lambda: len(template.children()) == helpers)
        below = template.children()
        await kill(template)
        await until(lambda: worker.phase is Phase.READY)
        assert await serves(worker)
        assert not is_warm(worker)
        await until(lambda: not launcher.templates.all)
        assert all_gone(below)
        assert len(said(caplog, "no warm template of vllm")) == 1


async def test_killed_while_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, asked for a fork, and killed with the request unread: a cold start, and a new template."""
    asked = anyio.Event()
    send = socket.send_fds

    def send_and_tell(*arguments: Any) -> int:
        asked.set()
        return send(*arguments)

    async with Launcher(warm_settings(tmp_path)) as launcher, anyio.create_task_group() as tasks:
        await started(launcher, tmp_path, "a")
        template = await ready_template(launcher)
        template.suspend()
        monkeypatch.setattr(socket, "send_fds", send_and_tell)
        worker = launcher.worker(fake_card(tmp_path, "b"))
        tasks.start_soon(worker.start)
        await asked.wait()
        await kill(template)
        await until(lambda: worker.phase is Phase.READY)
        assert await serves(worker)
        assert not is_warm(worker)
        assert await ready_template(launcher) != template
        assert is_warm(await started(launcher, tmp_path, "c"))


@pytest.mark.parametrize("noticed", [True, False])
async def test_killed_between_decision_and_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """A template that was ready a moment ago: the worker starts cold."""
    fork = Templates.fork

    async def kill_and_fork(
        self: Templates, launch: Launch, control_fd: int, log_fd: int
    ) -> ForkedNanny | None:
        template = self.all[Engine.VLLM]
        (process,) = templates()
        process.kill()
        if noticed:
            await until(lambda: isinstance(template.state, Gone))
        return await fork(self, launch, control_fd, log_fd)

    async with Launcher(warm_settings(tmp_path)) as launcher:
        await started(launcher, tmp_path, "a")
        with monkeypatch.context() as patch:
            patch.setattr(Templates, "fork", kill_and_fork)
            assert not is_warm(await started(launcher, tmp_path, "b"))
        assert is_warm(await started(launcher, tmp_path, "c"))


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("unfit", "told to be"),
        ("dies", "its process ended\n  architectures:\n  architectures:\n  dying as told"),
        ("stammers", "it is of another version: JSONDecodeError"),
        ("other_version", "it is of another version: KeyError"),
        ("refuses", "told to"),
        ("mute", "did not answer"),
    ],
)
async def test_no_use(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    manner: str,
    reason: str,
) -> None:
    """Whatever is wrong with it, workers start cold, and the log says so once."""
    monkeypatch.setattr("local_llm.worker.template.FORK_SECONDS", 0.1)
    monkeypatch.setattr("local_llm.worker.template._END_SECONDS", 0.1)
    async with Launcher(warm_settings(tmp_path, manner)) as launcher:
        for number in range(4):
            worker = await started(launcher, tmp_path, f"m{number}")
            assert not is_warm(worker)
            await until(lambda: not any(isinstance(each.state, Gone) for each in all_of(launcher)))
        assert not all_of(launcher)
        (warning,) = said(caplog, "")
        assert warning.startswith(f"no warm template of vllm, its workers start cold: {reason}")


def all_of(launcher: Launcher) -> list[Any]:
    """Those that exist at this moment."""
    return list(launcher.templates.all.values())


async def test_talkative(tmp_path: Path) -> None:
    """A megabyte without a line's end harms nobody."""
    async with Launcher(warm_settings(tmp_path, "babbles")) as launcher:
        assert is_warm(await started(launcher, tmp_path))


async def test_missing_python(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error is that of the cold start; of the template one line is logged."""
    vllm = VllmSettings(python=tmp_path / "nowhere", warm="on")
    async with Launcher(Settings(engines=EnginesSettings(vllm=vllm))) as launcher:
        for name in ("a", "b"):
            with pytest.raises(LoadFailed, match=r"could not be started .*No such file") as failure:
                await launcher.worker(fake_card(tmp_path, name)).start()
            assert not isinstance(failure.value, WarmStartFailed)
        assert len(said(caplog, "no warm template of vllm, its workers start cold: it could not be")) == 1


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_stop_while_it_waits(tmp_path: Path, how: str) -> None:
    """A load that is given up does not wait for a slow template."""
    async with Launcher(warm_settings(tmp_path, "endless")) as launcher:
        worker = launcher.worker(fake_card(tmp_path))
        start = asyncio.ensure_future(worker.start())
        template = await the_template()
        assert worker.phase is Phase.LAUNCHING
        with anyio.fail_after(30):
            if how == "stopped":
                await worker.stop(reason="enough")
                with pytest.raises(LoadFailed, match="stopped while it was loading"):
                    await start
            else:
                start.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await start
        assert worker.phase is Phase.GONE
        assert templates() == [template]


async def test_not_waited_for_too_long(tmp_path: Path) -> None:
    """One that does not get on costs the starts together a fixed time, not each of them."""
    async with Launcher(warm_settings(tmp_path, "endless")) as launcher, anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.templates.prepare, [fake_card(tmp_path, "a")])
        await the_template()
        launcher.templates.all[Engine.VLLM].state = Making(time.monotonic() - MAKING_SECONDS)
        assert not is_warm(await started(launcher, tmp_path, "b"))
        tasks.cancel_scope.cancel()


async def test_waiting_is_no_stall(tmp_path: Path) -> None:
    """load.stall_seconds is a deadline of the model, not of the template."""
    async with Launcher(warm_settings(tmp_path, "endless", stall_seconds=4)) as launcher:
        assert not is_warm(await started(launcher, tmp_path))


@pytest.mark.parametrize("manner", ["", "endless"])
async def test_end_with_the_launcher(tmp_path: Path, manner: str) -> None:
    """Ready or in the making, a template and its folder go when the launcher is left."""
    async with Launcher(warm_settings(tmp_path, manner)) as launcher, anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.templates.prepare, [fake_card(tmp_path)])
        template = await (ready_template(launcher) if manner == "" else the_template())
        (folder,) = [each for each in launcher._folder.path.iterdir() if each.is_dir()]
        tasks.cancel_scope.cancel()
    assert all_gone([template])
    assert not folder.parent.exists()


def little(free_bytes: int) -> Callable[[], gpu.HostMemory]:
    """A host with so much memory left."""
    return lambda: gpu.HostMemory(64 * GIB, free_bytes)


@pytest.mark.parametrize(("free_bytes", "warm"), [(5 * GIB - 1, False), (5 * GIB, True)])
async def test_auto(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    free_bytes: int,
    warm: bool,
) -> None:
    """Where its memory and 4 GiB beside it are free; where not, that is said once."""
    monkeypatch.setattr(gpu, "host_memory", little(free_bytes))
    async with Launcher(warm_settings(tmp_path, warm="auto")) as launcher:
        for name in ("a", "b"):
            assert is_warm(await started(launcher, tmp_path, name)) is warm
        assert len(templates()) == warm
        refused = said(caplog, "too little memory is free for a warm template of vllm", logging.INFO)
        assert len(refused) == (not warm)


async def test_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None is made, ahead or on demand, and nothing is said."""
    async with Launcher(warm_settings(tmp_path, warm="off")) as launcher:
        await launcher.templates.prepare([fake_card(tmp_path, "b")])
        assert not is_warm(await started(launcher, tmp_path))
        assert templates() == []
        assert [record for record in caplog.records if "template" in record.getMessage()] == []


async def test_killed_when_it_has_forked(tmp_path: Path) -> None:
    """A nanny that nobody has heard of does not take the place of the cold one, and goes."""
    async with Launcher(warm_settings(tmp_path, "dies_forking")) as launcher:
        worker = await started(launcher, tmp_path)
        assert not is_warm(worker)
        assert len(tree(worker)) == 2
        template = await ready_template(launcher)
        nanny = tree(worker)[0]
        await until(lambda: set(psutil.Process(os.getpid()).children()) == {nanny, template})
        assert await serves(worker)
