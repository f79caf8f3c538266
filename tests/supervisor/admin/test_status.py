"""GET /admin/status, through the real server."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil

from local_llm import __version__
from local_llm.admin.tree_memory import tree_memories
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, running, the_engine, until


def status(served: Served) -> dict[str, Any]:
    with served.client() as client:
        told: dict[str, Any] = client.get("/admin/status").raise_for_status().json()
    return told


def test_a_server_without_workers(tmp_path: Path) -> None:
    """Who it is and what it keeps within."""
    with running(tmp_path, residency={"max_models": 2, "keep": ["embedding"]}) as served:
        told = status(served)
        assert told["version"] == __version__
        assert told["pid"] == served.process.pid
        assert 0 <= told["uptime_seconds"] < 60
    assert (told["workers"], told["cooldowns"], told["models"]) == ([], [], {})
    assert told["waiting"] == {"total": 0, "by_model": {}}
    assert told["limits"]["residency"]["max_models"] == 2
    assert told["limits"]["residency"]["keep"] == ["embedding"]
    assert told["limits"]["queue"]["max_waiting"] == 256


def test_the_warm_templates(tmp_path: Path) -> None:
    """One an engine that has models: what it holds, and what it took."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path, warm="on") as served:
        served.wait_for_log("warm template ready")
        (template,) = status(served)["templates"]
    assert (template["engine"], template["state"]) == ("vllm", "ready")
    assert template["proportional_bytes"] > 1 << 20
    assert 0 <= template["seconds"] < 60


def test_a_worker_that_serves_and_one_that_is_waited_for(tmp_path: Path) -> None:
    """Phases, leases, who waits, process and memory, and what the switch took."""
    write_fake_model(tmp_path / "models", "org/a", chunks=200, chunk_seconds=0.05)
    write_fake_model(tmp_path / "models", "b")
    with running(tmp_path, queue={"patience": 0}) as served, served.client() as client:
        client.post("/admin/load", json={"model": "org/a"})
        waiter = threading.Thread(target=lambda: httpx.post(served.url + CHAT, json=asking("b"), timeout=60))
        with client.stream("POST", CHAT, json=asking("org/a", stream=True)) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            waiter.start()
            until(lambda: status(served)["waiting"] == {"total": 1, "by_model": {"b": 1}})
            until(lambda: status(served)["workers"][0]["phase"] == "draining")
            (worker,) = status(served)["workers"]
            engine = the_engine(served).process
        waiter.join()
        assert status(served)["workers"][0]["model"] == "b"
        assert set(status(served)["models"]) == {"b", "org/a"}
        models = status(served)["models"]
    assert (worker["id"], worker["model"], worker["kind"], worker["engine"]) == (
        "w1",
        "org/a",
        "chat",
        "vllm",
    )
    assert (worker["leases"], worker["waiting"], worker["progress"]) == (1, 0, None)
    assert (worker["pid"], worker["processes"]) == (engine.pid, 1)
    memory = worker["memory"]
    assert 1 << 20 < memory["proportional_bytes"] <= memory["resident_bytes"] < 1 << 30
    for model in models.values():
        assert (model["starts"], model["failures"], model["last_error"]) == (1, 0, None)
        assert 0 < model["switch_seconds"] < 60


def test_a_load_that_goes_on_and_one_that_failed(tmp_path: Path) -> None:
    """Progress while it loads; then the cooldown, the count, and the reason."""
    write_fake_model(tmp_path / "models", "slow", slow_start=1.5)
    write_fake_model(tmp_path / "models", "dies", die_at_start=3, say="the reason is this")
    with running(tmp_path) as served, served.client() as client:
        client.post("/admin/load", json={"model": "slow", "wait": False})
        until(lambda: bool(status(served)["workers"]))
        (worker,) = status(served)["workers"]
        assert (worker["phase"], worker["model"]) == ("loading", "slow")
        assert worker["progress"]
        client.post("/admin/load", json={"model": "dies"})
        told = status(served)
        (cooldown,) = told["cooldowns"]
        assert (cooldown["model"], cooldown["failures"]) == ("dies", 1)
        assert 0 < cooldown["seconds_left"] <= 10
        assert "the reason is this" in cooldown["error"]
        model = told["models"]["dies"]
        assert (model["starts"], model["failures"], model["switch_seconds"]) == (1, 1, None)
        assert "the reason is this" in model["last_error"]
        assert 0 <= model["last_error_seconds_ago"] < 60


def test_no_prompt_and_no_key(tmp_path: Path) -> None:
    """Not the server's keys, not the worker's, nothing of requests."""
    write_fake_model(tmp_path / "models", "a", chunks=100, chunk_seconds=0.05)
    key = {"authorization": "Bearer hush-hush"}
    with running(tmp_path, api_keys=["hush-hush"]) as served, served.client(headers=key) as client:
        body = {**asking("a", stream=True), "messages": [{"role": "user", "content": "a confession"}]}
        with client.stream("POST", CHAT, json=body) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            told = json.dumps(client.get("/admin/status").json())
            worker_key = the_engine(served).key
        assert worker_key
        for secret in ("hush-hush", worker_key, "confession"):
            assert secret not in told


def test_a_tree_that_is_gone_takes_nothing() -> None:
    """And one that is there has, even without children."""
    own = psutil.Process().pid
    found = tree_memories([own, 2**22 + 1])
    assert set(found) == {own}
    assert found[own].resident_bytes > 1 << 20
