"""LoRA adapters behind one URL: their base's worker answers for all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.catalog.adapters import adapter
from tests.supervisor.server.stage import CHAT, asking, health, loads, running


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A base with two adapters, and another model."""
    models = tmp_path / "models"
    write_fake_model(models, "org/base")
    write_fake_model(models, "other")
    adapter(models / "me" / "poet", "org/base")
    adapter(models / "painter", "base")
    with running(tmp_path) as served:
        yield served


def test_no_restart_between_them(served: Served) -> None:
    """Adapter, another by an alias, base, adapter: one process; the body arrives as it was sent."""
    pids = set()
    with served.client() as client:
        for model, folder in (("me/poet", "poet"), ("painter", "painter"), ("base", None), ("poet", "poet")):
            body = json.dumps(asking(model, temperature=0.25), indent=3).encode()
            answer = client.post(CHAT, content=body).raise_for_status()
            assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()
            assert answer.headers["x-fake-model"] == "org/base"
            said = answer.headers.get("x-fake-adapter")
            assert (said and Path(said).name) == folder
            pids.add(answer.headers["x-fake-pid"])
    assert len(pids) == 1
    assert loads(served) == ["org/base"]


def test_what_is_shown(served: Served) -> None:
    """An adapter is as active as its base, whose worker it is."""
    with served.client() as client:
        client.post(CHAT, json=asking("painter")).raise_for_status()
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        (worker,) = client.get("/admin/status").json()["workers"]
    states = {name: (each["state"], each["parent"]) for name, each in models.items()}
    assert states == {
        "org/base": ("active", None),
        "me/poet": ("active", "org/base"),
        "painter": ("active", "org/base"),
        "other": ("idle", None),
    }
    assert health(served)["active_model"] == "org/base"
    assert (worker["model"], worker["adapters"]) == ("org/base", ["me/poet", "painter"])


def test_a_changed_adapter_restarts_its_base_alone(served: Served, tmp_path: Path) -> None:
    """With the next request for either; a request for another model knows nothing of it."""
    with served.client() as client:
        first = client.post(CHAT, json=asking("base")).raise_for_status()
        adapter(tmp_path / "models" / "new", "org/base")
        second = client.post(CHAT, json=asking("new")).raise_for_status()
        assert Path(second.headers["x-fake-adapter"]).name == "new"
        assert first.headers["x-fake-pid"] != second.headers["x-fake-pid"]
        adapter(tmp_path / "models" / "of-other", "other")
        third = client.post(CHAT, json=asking("base")).raise_for_status()
        assert third.headers["x-fake-pid"] == second.headers["x-fake-pid"]


def test_load_and_unload_by_an_adapters_name(served: Served) -> None:
    """It is its base that is loaded and unloaded."""
    with served.client() as client:
        assert client.post("/admin/load", json={"model": "poet"}).json()["state"] == "active"
        assert health(served)["active_model"] == "org/base"
        unloaded = client.post("/admin/unload", json={"model": "painter"}).json()
        assert unloaded == {"model": "org/base", "state": "unloading"}
