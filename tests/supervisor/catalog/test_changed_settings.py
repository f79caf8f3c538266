"""The catalogue when settings change: names at once, and only the folders that they are about read again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog import catalog as catalog_module
from local_llm.catalog import files, records
from local_llm.catalog.card import Engine
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.walk import Location
from local_llm.errors import ModelNotFound
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import chat_model, embedding_model


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, in files that are old enough to be trusted."""
    monkeypatch.setattr(files, "_RACY_NS", -1)
    chat_model(tmp_path / "org" / "chat")
    embedding_model(tmp_path / "embed")
    return tmp_path


def settings(folder: Path, **said: Any) -> Settings:
    return Settings.model_validate({"models_dir": folder, **said})


@pytest.mark.parametrize(
    ("said", "read_again"),
    [
        ({}, set()),
        ({"aliases": {"x": "embed"}, "port": 1}, set()),
        ({"models": {"org/*": {"engine": "transformers"}}}, {"org/chat"}),
        ({"models": {"*": {"args": ["--x"]}, "embed": {"args": None}}}, {"org/chat"}),
        ({"engines": {"vllm": {"python": "/p"}}}, {"org/chat", "embed"}),
    ],
)
def test_what_is_looked_into_again(
    models: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], read_again: set[str]
) -> None:
    """The folders of which the settings say something else; all of them where an engine changed."""
    catalog = Catalog(settings(models))
    catalog.snapshot()
    read: set[str] = set()

    def examine(location: Location, told: Settings) -> records.Record:
        read.add(location.id)
        return records.examine_location(location, told)

    monkeypatch.setattr(catalog_module, "examine_location", examine)
    catalog.use(settings(models, **said))
    catalog.snapshot()
    assert read == read_again


def test_a_change_holds_at_once(models: Path) -> None:
    """For names, and for what is known of a model, though it was looked at a moment ago."""
    catalog = Catalog(settings(models, aliases={"old": "org/chat"}))
    assert catalog.find("old") == catalog.find("org/chat")
    catalog.use(settings(models, models={"org/chat": {"aliases": ["new"], "engine": "transformers"}}))
    card = catalog.find("new")
    assert (card.id, card.engine) == ("org/chat", Engine.TRANSFORMERS)
    with pytest.raises(ModelNotFound):
        catalog.find("old")


def test_the_context_that_clients_are_told(models: Path) -> None:
    """Is the one that is set."""
    catalog = Catalog(settings(models, models={"*": {"context": 99}}))
    assert [card.context_length for card in catalog.snapshot().models] == [99, 99]


def test_settings_without_effect_are_told_once(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also such as come later."""
    catalog = Catalog(settings(models, models={"embed": {"start": "fast"}}))
    with caplog.at_level(logging.WARNING):
        catalog.snapshot()
        catalog.use(settings(models, models={"embed": {"start": "fast"}, "chat": {}}))
        catalog.snapshot()
    assert caplog.messages == [
        "models.embed.start has no effect: it is vLLM's, and embed runs on transformers",
        "models.chat has no effect: there is no model of that id; did you mean 'org/chat'?",
    ]
