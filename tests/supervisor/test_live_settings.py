"""The settings file while the server runs: looked at, taken in, or refused."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from local_llm import live_settings
from local_llm.live_settings import LiveSettings, log
from local_llm.settings import Settings
from local_llm.settings_sources import SettingsError

FIRST = "port: 1\nmodels:\n  a: {args: [--one]}\n"
DEADLINE_SECONDS = 20.0


class _Heard(logging.Handler):
    """Sets an event with each log line."""

    def __init__(self) -> None:
        super().__init__()
        self._news = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._news.set()

    async def next(self) -> None:
        await self._news.wait()
        self._news = anyio.Event()


class Followed:
    """A file that is looked at without a pause, and what came of it."""

    def __init__(self, file: Path, **sources: Any) -> None:
        self.file = file
        self.live = LiveSettings(file, **sources, look_every_seconds=0.001, settle_seconds=0.001)
        self.used: list[Settings] = []
        self.broken: Exception | None = None
        self._news = anyio.Event()

    async def use(self, settings: Settings) -> None:
        if self.broken is not None:
            raise self.broken
        assert settings is self.live.current
        self.used.append(settings)
        self._news.set()

    async def until_used(self, times: int = 1) -> None:
        while len(self.used) < times:
            self._news = anyio.Event()
            await self._news.wait()

    async def until_told(self, caplog: pytest.LogCaptureFixture, beginning: str) -> None:
        """Returns when a log line begins so."""
        heard = _Heard()
        log.addHandler(heard)
        try:
            while not any(line.startswith(beginning) for line in caplog.messages):
                await heard.next()
        finally:
            log.removeHandler(heard)


@asynccontextmanager
async def following(folder: Path, **sources: Any) -> AsyncIterator[Followed]:
    file = folder / "settings.yaml"
    file.write_text(FIRST)
    followed = Followed(file, **sources)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(followed.live.follow, followed.use)
            yield followed
            tasks.cancel_scope.cancel()


async def unused(_: Settings) -> None:
    pytest.fail("nothing changed")


def replace(file: Path, text: str) -> None:
    """As editors do it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_a_good_change_is_taken_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Written in place; the log and the status say what changed."""
    caplog.set_level("INFO")
    async with following(tmp_path) as followed:
        followed.file.write_text("port: 1\nmodels:\n  a: {args: [--two]}\naliases: {x: a}\n")
        await followed.until_used()
    assert followed.live.current.models["a"].args == ("--two",)
    assert followed.live.current.aliases == {"x": "a"}
    assert "settings applied: aliases.x, models.a.args" in caplog.messages
    told = followed.live.tell()
    assert (told["file"], told["refused"], told["needs_restart"]) == (str(followed.file), None, [])
    assert told["changed_seconds_ago"] >= 0


async def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    """Of the same size, within the same tick: the content counts, not the stamp."""
    async with following(tmp_path) as followed:
        stamp = followed.file.stat()
        replace(followed.file, FIRST.replace("--one", "--two"))
        os.utime(followed.file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        await followed.until_used()
    assert followed.live.current.models["a"].args == ("--two",)


async def test_a_config_map(tmp_path: Path) -> None:
    """Kubernetes swaps a symbolic link to the folder that holds the file."""
    for version, text in (("v1", FIRST), ("v2", FIRST.replace("--one", "--two"))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "settings.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    file = tmp_path / "settings.yaml"
    file.symlink_to("..data/settings.yaml")
    followed = Followed(file)
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(followed.live.follow, followed.use)
            (tmp_path / "..new").symlink_to("v2")
            (tmp_path / "..new").replace(tmp_path / "..data")
            await followed.until_used()
            tasks.cancel_scope.cancel()
    assert followed.live.current.models["a"].args == ("--two",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n  a:\n    arg: [x]", "line 3: models.a.arg: there is no such key. Did you mean 'args'?"),
        ("models:\n  a:\n    gpus: '0,1'", "line 3: models.a.gpus: should be a count or a list"),
        ("models: [", "line 1: is no YAML"),
        ("- a\n- b", "must be a mapping"),
        ("a: &a {b: *a}", "is no YAML"),
        ("port: 1\nhost: 2020-13-45", "line 2: "),
        ("port: 99999\nhots: x", "line 1: port: input should be less than or equal to 65535"),
    ],
)
async def test_a_bad_change_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    """With file, line and key, in one log line; the old settings stay, and a better file is taken in."""
    async with following(tmp_path) as followed:
        before = followed.live.current
        replace(followed.file, text)
        await followed.until_told(caplog, "settings refused, the old ones stay: ")
        assert followed.live.current is before
        assert said in str(followed.live.tell()["refused"])
        (line,) = caplog.messages
        assert said in line
        assert str(followed.file) in line
        assert "\n" not in line
        replace(followed.file, FIRST.replace("--one", "--two"))
        await followed.until_used()
        assert followed.live.tell()["refused"] is None
    assert followed.used == [followed.live.current]


async def test_what_needs_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is told once; the rest of the change holds, and what is taken back needs none."""
    async with following(tmp_path) as followed:
        changed = "port: 2\nstop: {shutdown_grace_seconds: 3, grace_seconds: 4}\n"
        replace(followed.file, changed)
        await followed.until_used()
        current = followed.live.current
        assert (current.port, current.stop.shutdown_grace_seconds, current.stop.grace_seconds) == (1, 30, 4)
        assert followed.live.tell()["needs_restart"] == ["port", "stop.shutdown_grace_seconds"]
        replace(followed.file, changed + "aliases: {x: a}\n")
        await followed.until_used(2)
        replace(followed.file, FIRST)
        await followed.until_used(3)
        assert followed.live.tell()["needs_restart"] == []
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ["settings: needs a restart: port, stop.shutdown_grace_seconds"]


async def test_a_restart_that_is_needed_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is told to be applied."""
    async with following(tmp_path) as followed:
        replace(followed.file, FIRST.replace("port: 1", "port: 2"))
        await followed.until_told(caplog, "settings: needs a restart: port")
        assert followed.used == []


@pytest.mark.parametrize("how", ["removed", "emptied", "unreadable"])
async def test_a_file_that_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """The old settings stay, also where an empty file would mean the defaults."""
    caplog.set_level("INFO")
    async with following(tmp_path) as followed:
        before = followed.live.current
        if how == "emptied":
            followed.file.write_text("")
        else:
            followed.file.unlink()
        if how == "unreadable":
            followed.file.mkdir()
        await followed.until_told(caplog, "settings stay as they are: ")
        assert followed.live.current is before
        assert followed.live.tell()["refused"]
        if how == "unreadable":
            followed.file.rmdir()
        replace(followed.file, FIRST)
        await followed.until_told(caplog, "settings can be read again")
        assert followed.live.tell()["refused"] is None
        replace(followed.file, FIRST.replace("--one", "--two"))
        await followed.until_used()
    assert len([each for each in caplog.messages if each.startswith("settings stay")]) == 1


@pytest.mark.parametrize("half", ["", "port: 1\nmod", "port: 1\n"])
async def test_a_half_written_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Is read again a moment later, rather than refused, lost, or taken for the whole."""
    whole = FIRST.replace("--one", "--two")
    reads = iter([FIRST, half, whole])
    monkeypatch.setattr(live_settings, "read_settings_file", lambda _: next(reads, whole).encode())
    followed = Followed(tmp_path / "settings.yaml")
    with anyio.fail_after(DEADLINE_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(followed.live.follow, followed.use)
            await followed.until_used()
            tasks.cancel_scope.cancel()
    assert [each.models["a"].args for each in followed.used] == [("--two",)]
    assert caplog.messages == []


async def test_flags_and_environment_still_win(tmp_path: Path) -> None:
    """As at the start."""
    environment = {"LOCAL_LLM_QUEUE__MAX_WAITING": "3"}
    async with following(tmp_path, environment=environment, flags={"port": 7, "host": None}) as followed:
        replace(followed.file, "port: 2\nqueue: {max_waiting: 4, max_waiting_total: 5}\n")
        await followed.until_used()
    current = followed.live.current
    assert (current.port, current.queue.max_waiting, current.queue.max_waiting_total) == (7, 3, 5)
    assert followed.live.tell()["needs_restart"] == []


async def test_a_mistake_of_ours_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is looked at further on."""
    async with following(tmp_path) as followed:
        followed.broken = ValueError("ours")
        replace(followed.file, "port: 1\naliases: {x: a}")
        await followed.until_told(caplog, "settings refused")
        followed.broken = None
        replace(followed.file, "port: 1\naliases: {y: a}")
        await followed.until_used()
    assert followed.live.current.aliases == {"y": "a"}
    assert "ours" in caplog.text


async def test_what_can_be_read_once_only_is_not_looked_at() -> None:
    """`--config <(...)`: read again it would be empty."""
    reading, writing = os.pipe()
    os.write(writing, b"port: 1\n")
    os.close(writing)
    live = LiveSettings(Path(f"/dev/fd/{reading}"))
    with anyio.fail_after(DEADLINE_SECONDS):
        await live.follow(unused)
    os.close(reading)
    assert live.current.port == 1


async def test_without_a_file_there_is_nothing_to_follow() -> None:
    """Flags and environment do not change."""
    live = LiveSettings(environment={"LOCAL_LLM_PORT": "5"})
    await live.follow(unused)
    assert live.current.port == 5
    assert live.tell()["file"] is None


def test_a_bad_file_at_the_start(tmp_path: Path) -> None:
    """Ends the start, as ever."""
    with pytest.raises(SettingsError, match="cannot be read"):
        LiveSettings(tmp_path / "nowhere.yaml")
