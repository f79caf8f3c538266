"""GET /admin/events: who listens hears everything, and nobody is held up by who listens."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from local_llm import logs
from local_llm.admin.feed import BUFFERED_EVENTS, MOST_LISTENERS, EventFeed
from local_llm.errors import Overloaded, ShuttingDown
from local_llm.settings import Settings
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, connect, running, until

OURS = logging.getLogger("local_llm")
log = logging.getLogger("local_llm.something")


class Heard(list[tuple[str, dict[str, Any]]]):
    """The events of one listener, collected in a thread until its stream ends."""

    def __init__(self, served: Served, **headers: str) -> None:
        super().__init__()
        self.listening = threading.Event()
        self.ended_well = False
        self.headers: dict[str, str] = {}
        self._url = served.url + "/admin/events"
        self._request_headers = headers
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Heard:
        self._thread.start()
        assert self.listening.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)

    def of(self, kind: str, **data: Any) -> list[dict[str, Any]]:
        """The events of a kind that have these data."""
        return [each for found, each in list(self) if found == kind and data.items() <= each.items()]

    def _listen(self) -> None:
        with httpx.stream("GET", self._url, headers=self._request_headers, timeout=60) as answer:
            self.headers = dict(answer.headers)
            for kind, data in events(answer.iter_lines()):
                if not data:
                    self.listening.set()
                else:
                    self.append((kind, json.loads(data)))
        self.ended_well = True


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Server-sent events; comments come as a kind without data."""
    kind = ""
    for line in lines:
        if line.startswith(": "):
            yield line[2:], ""
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, line[6:]


def test_a_switch_as_it_happens(tmp_path: Path) -> None:
    """States, progress, the worker's own lines, requests; then the stream ends with the server."""
    write_fake_model(tmp_path / "models", "org/a", say="hello from the engine")
    with running(tmp_path, api_keys=["hush"]) as served, Heard(served, authorization="Bearer hush") as heard:
        body = {"model": "org/a", "messages": [{"role": "user", "content": "a confession"}]}
        httpx.post(served.url + CHAT, json=body, headers={"x-api-key": "hush"}, timeout=60).raise_for_status()
        until(lambda: bool(heard.of("request")))
        ready = heard.of("state", model="org/a", to="ready")
        assert [each["worker"] for each in ready] == ["w1"]
        assert heard.of("log", worker="w1", message="hello from the engine")
        (request,) = heard.of("request")
        assert (request["model"], request["status"], request["message"]) == ("org/a", 200, CHAT)
        assert served.end() == 0
    assert heard.headers["content-type"].startswith("text/event-stream")
    assert heard.ended_well
    everything = json.dumps(heard)
    assert "hush" not in everything
    assert "confession" not in everything


def test_progress_of_a_load(tmp_path: Path) -> None:
    """Phase and per cent, as the worker's log has them."""
    write_fake_model(
        tmp_path / "models", "a", say="Loading safetensors checkpoint shards:  50% Completed | 1/2"
    )
    with running(tmp_path) as served, Heard(served) as heard, served.client() as client:
        client.post("/admin/load", json={"model": "a"})
        until(lambda: bool(heard.of("progress", worker="w1", model="a", phase="weights", percent=50)))
        served.end()


@pytest.mark.parametrize("reads", [True, False])
def test_listeners_do_not_hold_up_the_end(tmp_path: Path, reads: bool) -> None:
    """Not even one that has stopped reading while more waits for it than the kernel buffers."""
    line = "x" * 1_900 + "\n"
    write_fake_model(tmp_path / "models", "talks", say=line * 5_000)
    with running(tmp_path) as served, connect(served) as connection, served.client() as client:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /admin/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(100)
        if not reads:
            client.post("/admin/load", json={"model": "talks"}).raise_for_status()
        began_at = time.monotonic()
        assert served.end() == 0
        assert time.monotonic() - began_at < 10


def test_a_head_request_ends(tmp_path: Path) -> None:
    """Nothing to listen to in it."""
    with running(tmp_path) as served, served.client() as client:
        assert client.head("/admin/events").status_code == 200


@pytest.fixture
def usual() -> Iterator[None]:
    """Restores the loggers' handlers and levels."""
    root = logging.getLogger()
    before = root.handlers, root.level, OURS.handlers, OURS.level
    yield
    root.handlers, OURS.handlers = before[0], before[2]
    root.setLevel(before[1])
    OURS.setLevel(before[3])


@pytest.mark.usefixtures("usual")
async def test_listening_makes_no_other_log_noisier(capsys: pytest.CaptureFixture[str]) -> None:
    """Debug lines reach the listener, and standard error has what it was set to."""
    logs.set_up_logging(Settings(log_level="info", log_format="json"))
    feed = EventFeed()
    with feed.listening() as listener:
        log.debug("quiet", extra={"fields": {"worker": "w1"}})
        log.info("loud")
        heard = await listener.take(5)
    log.debug("nobody listens")
    said = capsys.readouterr().err
    assert "loud" in said
    assert "quiet" not in said
    assert [json.loads(data)["message"] for _, data in events(iter(heard.decode().splitlines()))] == [
        "quiet",
        "loud",
    ]
    assert OURS.level == logging.INFO
    assert feed not in OURS.handlers


@pytest.mark.usefixtures("usual")
async def test_a_slow_listener_loses_the_oldest_and_is_told() -> None:
    """The server never waits for it, and keeps no more than so many for it."""
    feed = EventFeed()
    with feed.listening() as listener:
        for number in range(BUFFERED_EVENTS + 7):
            log.info("%d", number)
        heard = list(events(iter((await listener.take(5)).decode().splitlines())))
        assert heard[0] == ("lost", '{"events": 7}')
        assert json.loads(heard[1][1])["message"] == "7"
        assert len(heard) == 1 + BUFFERED_EVENTS
        log.info("again")
        (again,) = events(iter((await listener.take(5)).decode().splitlines()))
        assert again[0] == "log"


@pytest.mark.usefixtures("usual")
async def test_events_of_other_threads() -> None:
    """Wake the listener, too."""
    feed = EventFeed()
    with feed.listening() as listener:
        taking = asyncio.ensure_future(listener.take(30))
        await anyio.to_thread.run_sync(log.warning, "from a thread")
        assert b"from a thread" in await taking


@pytest.mark.usefixtures("usual")
async def test_nothing_happens() -> None:
    """Then a listener has nothing, after a while: time for a heartbeat."""
    with EventFeed().listening() as listener:
        assert await listener.take(0.01) == b""


@pytest.mark.usefixtures("usual")
async def test_only_so_many_may_listen_and_none_after_the_end() -> None:
    """429, and 503; who listens at the end is told."""
    feed = EventFeed()
    with feed.listening() as last:
        with ExitStack() as others:
            for _ in range(MOST_LISTENERS - 1):
                others.enter_context(feed.listening())
            with pytest.raises(Overloaded), feed.listening():
                pytest.fail("one too many")
        feed.end()
        assert last.over.is_set()
        with pytest.raises(ShuttingDown), feed.listening():
            pytest.fail("too late")
