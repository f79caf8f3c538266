"""What differs between two settings, what needs a restart, and what makes another worker necessary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.settings import Settings
from local_llm.settings_change import LIVE, differences, needs_restart, with_settled
from local_llm.switchboard.describe import describe

CHAT = ModelCard("a", Path("/m/a"), Kind.CHAT, Engine.VLLM, (), fingerprint="f")
EMBEDDING = ModelCard("e", Path("/m/e"), Kind.EMBEDDING, Engine.TRANSFORMERS, (), fingerprint="f")


def read(values: dict[str, Any]) -> Settings:
    return Settings.model_validate(values)


@pytest.mark.parametrize(
    ("before", "after", "keys"),
    [
        ({}, {}, []),
        ({}, {"port": 1}, ["port"]),
        ({"models": {"a": {"args": ["x"]}}}, {"models": {"a": {"args": ["y"]}}}, ["models.a.args"]),
        ({"models": {"a": {}}}, {"models": {}}, ["models.a"]),
        ({"models": {"a": {}}}, {"models": {"a": {"dtype": None}}}, ["models.a.dtype"]),
        ({"models": {"a*": {}, "*b": {}}}, {"models": {"*b": {}, "a*": {}}}, ["models"]),
        ({"engines": {"vllm": {"env": {"A": 1}}}}, {"engines": {}}, ["engines.vllm.env.A"]),
        ({"aliases": {"x": "a"}}, {"aliases": {"x": "b", "y": "b"}}, ["aliases.x", "aliases.y"]),
        ({"api_keys": ["secret"]}, {"api_keys": ["other"]}, ["api_keys"]),
    ],
)
def test_differences(before: dict[str, Any], after: dict[str, Any], keys: list[str]) -> None:
    """Down to the key; never a value, which may be a secret."""
    assert [".".join(each) for each in differences(read(before), read(after))] == keys


def test_every_section_is_live_or_settled() -> None:
    """No name in LIVE is mistyped, and what is not named there needs a restart."""
    assert set(Settings.model_fields) >= LIVE
    assert needs_restart(("port",))
    assert needs_restart(("residency", "preload"))
    assert not needs_restart(("residency", "keep"))
    assert not needs_restart(("models", "a", "args"))


def test_what_is_settled_stays() -> None:
    """The rest is as it is wanted."""
    before = read(
        {"port": 1, "residency": {"max_models": 2, "preload": ["a"]}, "load": {"read_ahead": "off"}}
    )
    after = read({"port": 2, "residency": {"max_models": 3}, "load": {"stall_seconds": 5}, "host": "::"})
    found = with_settled(before, after)
    assert (found.port, found.host, found.residency.preload, found.load.read_ahead) == (
        1,
        "127.0.0.1",
        ("a",),
        "off",
    )
    assert (found.residency.max_models, found.load.stall_seconds) == (3, 5)
    assert list(differences(found, with_settled(before, found))) == []


@pytest.mark.parametrize(
    "said",
    [
        {"models": {"a": {"args": ["--x"]}}},
        {"models": {"*": {"env": {"A": "1"}}}},
        {"models": {"a": {"python": "/p"}}},
        {"models": {"a": {"context": 1}}},
        {"models": {"a": {"dtype": "float16"}}},
        {"models": {"a": {"gpus": 1}}},
        {"models": {"a": {"start": "fast"}}},
        {"models": {"a": {"trust_remote_code": True}}},
        {"engines": {"vllm": {"args": ["--x"]}}},
        {"engines": {"vllm": {"start": "fast"}}},
        {"engines": {"vllm": {"cpu_kv_cache_gib": 2}}},
    ],
)
def test_what_a_worker_is_started_with_is_in_its_key(said: dict[str, Any]) -> None:
    """Another one is needed for it, and none for a model that it does not touch."""
    assert describe(CHAT, read(said)).key != describe(CHAT, read({})).key
    touched = "*" in said.get("models", {})
    assert (describe(EMBEDDING, read(said)).key != describe(EMBEDDING, read({})).key) is touched


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ({"models": {"a": {"keep": True}}, "residency": {"max_models": 2}}, {"kept": True}),
        ({"models": {"a": {"keep": False}}, "residency": {"max_models": 2, "keep": ["*"]}}, {"kept": False}),
        ({"models": {"a": {"idle_unload_seconds": 5}}}, {"idle_unload_seconds": 5.0}),
        ({"models": {"a": {"idle_unload_seconds": 0}}}, {"idle_unload_seconds": 0.0}),
        ({"models": {"a": {"memory_bytes": 5}}}, {"need_bytes": 5}),
        ({"models": {"a": {"fit": False}}}, {}),
        ({"engines": {"vllm": {"max_concurrent": 3, "warm": "off"}}}, {"max_concurrent": 3}),
        ({"engines": {"transformers": {"args": ["--x"]}}}, {}),
        ({"models": {"b": {"args": ["--x"]}}}, {}),
        ({"port": 5, "stop": {"grace_seconds": 1}}, {}),
        ({"models": {"a": {"args": [], "env": {}, "dtype": None}}}, {}),
    ],
)
def test_what_is_no_matter_of_the_worker_is_not(said: dict[str, Any], known: dict[str, Any]) -> None:
    """It holds at once, for the worker that runs."""
    model = describe(CHAT, read(said))
    assert model.key == describe(CHAT, read({})).key
    assert {name: getattr(model, name) for name in known} == known
