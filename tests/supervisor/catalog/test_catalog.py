"""Finding models by name, and noticing what changes on disk."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from local_llm.catalog import catalog as catalog_module
from local_llm.catalog import files, records
from local_llm.catalog.card import Kind
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.folder import Facts, examine
from local_llm.catalog.walk import Location
from local_llm.errors import ModelBroken, ModelNotFound
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import (
    CHAT_FILES,
    LLAMA,
    chat_model,
    embedding_model,
    hub_snapshot,
    sharded,
    write,
)


@pytest.fixture(params=["racy", "settled"])
def models(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder; once with files too young to be trusted, once as if they were all old."""
    if request.param == "settled":
        monkeypatch.setattr(files, "_RACY_NS", -1)
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture
def catalog(models: Path) -> Catalog:
    """A catalogue of that folder."""
    return Catalog(Settings(models_dir=models, aliases={"gpt-4": "org/m"}))


def test_find_by_id_alias_and_short_name(models: Path, catalog: Catalog) -> None:
    """All names lead to the same card, which lists them."""
    chat_model(models / "org" / "m")
    card = catalog.find("org/m")
    assert card.served_names == ("org/m", "gpt-4", "m")
    assert catalog.find("m") == catalog.find("gpt-4") == card


@pytest.mark.parametrize("name", ["../m", "/etc/passwd", "m\0", "", ".", "m/", "org", "é" * 10_000, "\ud800"])
def test_names_that_are_no_models(models: Path, catalog: Catalog, name: str) -> None:
    """A name is looked up, never walked to."""
    chat_model(models / "m")
    chat_model(models / "org" / "n")
    with pytest.raises(ModelNotFound):
        catalog.find(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("qwen3-8b", "'Qwen3-8B'"),
        ("Qwen3-8b-instruct", "'Qwen3-8B'"),
        ("other/Llama", "'meta/Llama', 'my/Llama'"),
        ("Llama", "'meta/Llama', 'my/Llama'"),
    ],
)
def test_the_nearest_names_are_told(models: Path, catalog: Catalog, name: str, nearest: str) -> None:
    """Another case, a longer name, another or a missing organisation."""
    for each in ("Qwen3-8B", "meta/Llama", "my/Llama"):
        chat_model(models / each)
    with pytest.raises(ModelNotFound, match=f"Did you mean {nearest}"):
        catalog.find(name)


def test_a_broken_model_tells_its_reason(models: Path, catalog: Catalog) -> None:
    """By its id and by its short name; and it works as soon as it is whole."""
    sharded(models / "org" / "m", present=3)
    for name in ("org/m", "m", "gpt-4"):
        with pytest.raises(ModelBroken, match="'org/m' cannot be served: 1 of 4 shards are missing"):
            catalog.find(name)
    sharded(models / "org" / "m", present=4)
    assert catalog.find("m").size_bytes == 20


def test_a_link_that_comes_to_life(models: Path, catalog: Catalog) -> None:
    """A hub snapshot whose blob arrives late changes no folder that holds the link."""
    hub_snapshot(models, "org/m", "aaa", CHAT_FILES, main=True)
    blob = (models / "models--org--m" / "snapshots" / "aaa" / "model.safetensors").readlink()
    blob.rename(blob.with_name("elsewhere"))
    with pytest.raises(ModelBroken):
        catalog.find("org/m")
    blob.with_name("elsewhere").rename(blob)
    assert catalog.find("org/m").kind is Kind.CHAT


def test_a_folder_that_appears(models: Path, catalog: Catalog) -> None:
    """Noticed by the next request for it, at the top and below."""
    assert catalog.snapshot().models == ()
    chat_model(models / "m")
    assert catalog.find("m").id == "m"
    chat_model(models / "org" / "n")
    assert catalog.find("n").id == "org/n"
    chat_model(models / "org" / "o")
    assert catalog.find("org/o").id == "org/o"


def test_a_folder_that_goes(models: Path, catalog: Catalog) -> None:
    """Noticed by the next request for it."""
    chat_model(models / "org" / "m")
    assert catalog.find("m").id == "org/m"
    shutil.rmtree(models / "org" / "m")
    with pytest.raises(ModelNotFound):
        catalog.find("m")


def test_a_folder_that_changes(models: Path, catalog: Catalog) -> None:
    """A new card with another fingerprint, the old one untouched."""
    folder = chat_model(models / "m")
    before = catalog.find("m")
    write(folder, {"config.json": {**LLAMA, "max_position_embeddings": 99}})
    after = catalog.find("m")
    assert (before.context_length, after.context_length) == (4096, 99)
    assert before.fingerprint != after.fingerprint


def test_a_template_that_is_added(models: Path, catalog: Catalog) -> None:
    """A base model becomes a chat model by one more file."""
    folder = chat_model(models / "m", **{"tokenizer_config.json": {}})
    assert catalog.find("m").kind is Kind.BASE
    write(folder, {"chat_template.jinja": "{{ x }}"})
    assert catalog.find("m").kind is Kind.CHAT


def test_a_new_folder_takes_its_name_back(models: Path, catalog: Catalog) -> None:
    """A short name gives way to an id that appears at the top."""
    chat_model(models / "org" / "m")
    assert catalog.find("m").id == "org/m"
    chat_model(models / "m")
    assert catalog.find("m").id == "m"
    assert catalog.find("org/m").aliases == ("gpt-4",)


def test_weights_that_grow_in_place(models: Path, catalog: Catalog) -> None:
    """A listing sees it, though no folder's time stamp changes."""
    folder = chat_model(models / "m")
    assert catalog.snapshot().models[0].size_bytes == 7
    write(folder, {"model.safetensors": b"more weights"})
    assert catalog.snapshot().models[0].size_bytes == 12


def test_a_revision_that_moves(models: Path, catalog: Catalog) -> None:
    """refs/main is followed."""
    hub_snapshot(models, "org/m", "aaa", CHAT_FILES, main=True)
    assert catalog.find("m").path.name == "aaa"
    hub_snapshot(models, "org/m", "bbb", CHAT_FILES, main=True)
    assert catalog.find("m").path.name == "bbb"


def test_nothing_is_read_when_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old files are looked at, not read; of several, only what changed is read."""
    monkeypatch.setattr(files, "_RACY_NS", -1)
    for name in ("a", "org/b"):
        chat_model(tmp_path / name)
    embedding_model(tmp_path / "c")
    sharded(tmp_path / "d", present=1)
    catalog = Catalog(Settings(models_dir=tmp_path))
    examined: list[str] = []

    def count(location: Location, settings: Settings) -> records.Record:
        examined.append(location.id)
        return records.examine_location(location, settings)

    monkeypatch.setattr(catalog_module, "examine_location", count)
    first = catalog.snapshot()
    assert examined == ["a", "c", "d", "org/b"]
    assert catalog.snapshot() is first
    assert catalog.find("b") is first.models[2]
    with pytest.raises(ModelNotFound):
        catalog.find("unknown")
    assert len(examined) == 4
    write(tmp_path / "a", {"generation_config.json": {}})
    assert catalog.snapshot() is not first
    assert examined[4:] == ["a"]


def test_young_files_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one tick of the file system's clock a change leaves no trace, so young files are read again."""
    monkeypatch.setattr(files, "_stamp", lambda status: status and (1, 1, 1, 1))
    folder = chat_model(tmp_path / "m")
    catalog = Catalog(Settings(models_dir=tmp_path))
    assert catalog.find("m").size_bytes == 7
    write(folder, {"model.safetensors": b"other"})
    assert catalog.find("m").size_bytes == 5


def test_an_alias_without_a_model_is_warned_of_once(
    models: Path, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    """Never fatal, and not repeated at every scan."""
    with caplog.at_level(logging.WARNING, logger=catalog_module.__name__):
        for name in ("a", "b", "c"):
            chat_model(models / name)
            catalog.snapshot()
    assert caplog.messages == ["alias 'gpt-4' is left out: there is no model 'org/m'"]


def test_a_relative_models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths on cards are absolute, since a worker may have another working directory."""
    chat_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    assert Catalog(Settings(models_dir=Path("..") / "m")).find("m").path == tmp_path / "m"
    assert Catalog(Settings(models_dir=Path())).find("m").path == tmp_path / "m"


def test_a_surprise_in_one_folder_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody thought of breaks that folder only, and its trace is logged."""
    chat_model(tmp_path / "good")
    embedding_model(tmp_path / "odd")

    def surprise(folder: files.Folder, name: str, *, downloading: bool) -> Facts:
        if name == "odd":
            raise ZeroDivisionError
        return examine(folder, name, downloading=downloading)

    monkeypatch.setattr(records, "examine", surprise)
    snapshot = Catalog(Settings(models_dir=tmp_path)).snapshot()
    assert [card.id for card in snapshot.models] == ["good"]
    assert snapshot.broken[0].reason == "examining its folder failed: ZeroDivisionError"
    assert "odd" in caplog.text
