"""What is loaded together, what unasked, and what goes when nobody asks: through the real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from local_llm import residency
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed, ModelNotFound
from local_llm.settings import ResidencySettings, Settings
from local_llm.switchboard.describe import describe, limits
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, health, loads, running, until

GIB = 1 << 30


def loaded(served: Served) -> set[str]:
    return {each["model"] for each in health(served)["workers"] if each["phase"] == "serving"}


def ask(served: Served, model: str) -> None:
    path = "/v1/embeddings" if model.startswith("embed") else CHAT
    answer = httpx.post(served.url + path, json=asking(model, input="x"), timeout=60)
    assert (answer.status_code, answer.headers["x-fake-model"]) == (200, model)


def test_a_chat_and_an_embedding_model_side_by_side(tmp_path: Path) -> None:
    """With two places: back and forth without a switch; a third takes the place of the longest unused."""
    for name, kind in (("chat", "chat"), ("embedder", "embedding"), ("third", "chat")):
        write_fake_model(tmp_path / "models", name, kind=kind)
    with running(tmp_path, residency={"max_models": 2}) as served:
        for _ in range(3):
            ask(served, "chat")
            ask(served, "embedder")
        assert loads(served) == ["chat", "embedder"]
        ask(served, "chat")
        ask(served, "third")
        assert loaded(served) == {"chat", "third"}


def test_a_kept_model_stays(tmp_path: Path) -> None:
    """However long it was not used, others make place for others."""
    for name, kind in (("embedder", "embedding"), ("a", "chat"), ("b", "chat")):
        write_fake_model(tmp_path / "models", name, kind=kind)
    with running(tmp_path, residency={"max_models": 2, "keep": ["embedding"]}) as served:
        for model in ("embedder", "a", "b", "a"):
            ask(served, model)
        assert loads(served) == ["embedder", "a", "b", "a"]
        assert loaded(served) == {"embedder", "a"}


def test_memory_decides_who_may_stay(tmp_path: Path) -> None:
    """Three places, and memory for two of three."""
    for name in ("a", "b", "small"):
        write_fake_model(tmp_path / "models", name)
    settings: dict[str, Any] = {
        "residency": {"max_models": 3, "memory_bytes": 10 * GIB},
        "models": {"*": {"memory_bytes": 6 * GIB}, "small": {"memory_bytes": 1 * GIB}},
    }
    with running(tmp_path, **settings) as served:
        for model in ("small", "a", "b"):
            ask(served, model)
        assert loaded(served) == {"small", "b"}


def test_idle_models_are_unloaded(tmp_path: Path) -> None:
    """All but the kept."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "embedder", kind="embedding")
    chosen = {"max_models": 2, "keep": ["embedding"], "idle_unload_seconds": 0.5}
    with running(tmp_path, residency=chosen) as served:
        ask(served, "embedder")
        ask(served, "a")
        gone = served.wait_for_log("worker stopping", model="a")
        assert "idle" in gone["reason"]
        served.wait_for_log("worker gone", model="a")
        assert loaded(served) == {"embedder"}
        ask(served, "a")


def test_preloaded_models_are_there_at_once(tmp_path: Path) -> None:
    """One after the other; what cannot be loaded is logged, and the rest goes on."""
    write_fake_model(tmp_path / "models", "org/a")
    write_fake_model(tmp_path / "models", "dies", die_at_start=3, say="CUDA out of memory")
    write_fake_model(tmp_path / "models", "b")
    chosen = {"max_models": 4, "preload": ["dies", "missing", "a", "b"]}
    with running(tmp_path, residency=chosen) as served:
        assert "dies" in served.wait_for_log("dies could not be preloaded", level="warning")["message"]
        assert "does not exist" in served.wait_for_log("missing could not be preloaded")["message"]
        served.wait_for_log("org/a is preloaded")
        served.wait_for_log("b is preloaded")
        assert loads(served) == ["dies", "org/a", "b"]
        assert loaded(served) == {"org/a", "b"}


def test_preloading_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Requests are served, and the server ends, while it goes on."""
    write_fake_model(tmp_path / "models", "slow", slow_start=60)
    write_fake_model(tmp_path / "models", "quick")
    with running(tmp_path, residency={"max_models": 2, "preload": ["slow"]}) as served:
        until(lambda: [each["model"] for each in health(served)["workers"]] == ["slow"])
        ask(served, "quick")
        assert served.end() == 0


def test_the_default_model_is_loaded_and_returned_to(tmp_path: Path) -> None:
    """At the start; after others were idle for a while; not while somebody uses them."""
    write_fake_model(tmp_path / "models", "org/default")
    write_fake_model(tmp_path / "models", "other")
    chosen = {"default_model": "default", "default_model_after_seconds": 0.5}
    with running(tmp_path, residency=chosen) as served:
        served.wait_for_log("worker ready", model="org/default")
        ask(served, "other")
        left = served.wait_for_log("worker stopping", model="other")
        assert "default" in left["reason"]
        mark = len(served.log)
        served.wait_for_log("worker ready", after=mark, model="org/default")
        assert loads(served) == ["org/default", "other", "org/default"]


def test_an_unloaded_default_stays_away_until_it_is_asked_for(tmp_path: Path) -> None:
    """An operator who unloads it means it."""
    write_fake_model(tmp_path / "models", "default")
    write_fake_model(tmp_path / "models", "other")
    chosen = {"default_model": "default", "default_model_after_seconds": 0.2}
    with running(tmp_path, residency=chosen) as served, served.client() as client:
        served.wait_for_log("worker ready", model="default")
        client.post("/admin/unload", json={"model": "default"})
        served.wait_for_log("worker gone", model="default")
        assert health(served)["workers"] == []
        ask(served, "other")
        served.wait_for_log("worker ready", after=len(served.log), model="default")
    assert loads(served) == ["default", "other", "default"]


class Followed:
    """Stands in for catalogue and switchboard: what is found is the test's, what is told is noted."""

    def __init__(self) -> None:
        self.found: ModelCard | Exception = ModelNotFound("nothing of that name")
        self.told: list[ModelCard | None] = []
        self.loaded: list[str] = []
        self.failing: set[str] = set()
        self._news = anyio.Event()

    def find(self, name: str) -> ModelCard:
        self._news.set()
        self._news = anyio.Event()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def load(self, card: ModelCard) -> None:
        self.loaded.append(card.id)
        if card.id in self.failing:
            raise LoadFailed("out of memory")

    def set_default(self, card: ModelCard | None) -> None:
        self.told.append(card)

    async def looked(self, times: int = 2) -> None:
        """Returns when it was looked for so many times more: the last look has been acted on."""
        for _ in range(times):
            await self._news.wait()


def version(number: int) -> ModelCard:
    return ModelCard("a", Path("/m/a"), Kind.CHAT, Engine.VLLM, (), fingerprint=str(number))


async def test_the_folder_of_the_default_model_is_followed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may come later, change and go; what is wrong with it is said once."""
    monkeypatch.setattr(residency, "LOOK_EVERY_SECONDS", 0.001)
    world = Followed()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            chosen = ResidencySettings(default_model="a")
            tasks.start_soon(residency.load_unasked, lambda: chosen, world, world)
            await world.looked(5)
            assert world.told == []
            for found in (version(1), version(2), ModelNotFound("gone"), version(2)):
                world.found = found
                await world.looked()
            tasks.cancel_scope.cancel()
    assert world.told == [version(1), version(2), None, version(2)]
    assert [record.getMessage() for record in caplog.records] == [
        "the default model a cannot be loaded: nothing of that name",
        "the default model a cannot be loaded: gone",
    ]


def test_a_changed_default_is_loaded_anew(tmp_path: Path) -> None:
    """The old version makes way like any other model, the new one is loaded from its own card."""
    folder = write_fake_model(tmp_path / "models", "default")
    with running(
        tmp_path, residency={"default_model": "default", "default_model_after_seconds": 0.1}
    ) as served:
        served.wait_for_log("worker ready", model="default")
        mark = len(served.log)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "version": 2}))
        served.wait_for_log("worker stopping", after=mark, model="default")
        served.wait_for_log("worker ready", after=mark, model="default")
        assert health(served)["active_model"] == "default"


def card(**facts: Any) -> ModelCard:
    return ModelCard("org/a", Path("/m"), Kind.CHAT, Engine.VLLM, (), **facts)


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({}, int(10 * GIB * 1.2) + GIB),
        ({"org/a": {"memory_bytes": 7}}, 7),
        ({"org/*": {"memory_bytes": 7}, "org/a": {"args": []}}, 7),
        ({"org/*": {"memory_bytes": 7}, "org/a": {"memory_bytes": 0}}, 0),
    ],
)
def test_what_a_model_needs(models: dict[str, Any], expected: int) -> None:
    """As set, the exact id last; else estimated from its weights."""
    settings = Settings.model_validate({"models": models})
    assert describe(card(size_bytes=10 * GIB), settings).need_bytes == expected


def test_the_policy_has_the_limits_that_were_set() -> None:
    """Each of them."""
    chosen = {
        "max_models": 3,
        "memory_bytes": 5,
        "idle_unload_seconds": 6,
        "default_model_after_seconds": 7,
    }
    found = limits(Settings.model_validate({"residency": chosen}))
    assert (found.max_models, found.capacity_bytes) == (3, 5)
    assert (found.idle_unload_seconds, found.default_model_after_seconds) == (6, 7)
    unset = limits(Settings())
    assert (unset.capacity_bytes, unset.idle_unload_seconds, unset.default_model) == (None, None, None)


@pytest.mark.parametrize(
    "broken",
    [
        {"max_models": 1, "preload": ["a", "b"]},
        {"max_models": 2, "keep": ["a", "b"]},
        {"idle_unload_seconds": -1},
        {"memory_bytes": -1},
    ],
)
def test_settings_that_contradict_themselves(broken: dict[str, Any]) -> None:
    """Are refused, rather than half obeyed."""
    with pytest.raises(ValueError, match=r"must stay free|push the earlier|greater than or equal to 0"):
        ResidencySettings.model_validate(broken)
