"""Where models are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local_llm.catalog import files
from local_llm.catalog import walk as walk_module
from local_llm.catalog.catalog import Catalog, Snapshot
from local_llm.catalog.files import Unservable
from local_llm.catalog.walk import ModelsDirUnreadable
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import CHAT_FILES, chat_model, hub_snapshot, sharded, write


def _snapshot(models_dir: Path) -> Snapshot:
    return Catalog(Settings(models_dir=models_dir)).snapshot()


def _ids(models_dir: Path) -> list[str]:
    return [card.id for card in _snapshot(models_dir).models]


def _broken(models_dir: Path) -> dict[str, str]:
    return {each.id: each.reason for each in _snapshot(models_dir).broken}


def test_plain_and_nested_folders(tmp_path: Path) -> None:
    """One and two levels are models; three are not, nor are hidden folders and loose files but GGUF."""
    chat_model(tmp_path / "zeta")
    chat_model(tmp_path / "org" / "alpha")
    chat_model(tmp_path / "org" / "deep" / "beta")
    chat_model(tmp_path / ".cache" / "gamma")
    write(tmp_path, {"README.md": "x", "loose.gguf": b"x"})
    (tmp_path / "notes").mkdir()
    assert _ids(tmp_path) == ["org/alpha", "zeta"]
    assert list(_broken(tmp_path)) == ["loose"]


def test_folders_inside_a_model_are_its_own(tmp_path: Path) -> None:
    """A checkpoint inside a model's folder is not another model."""
    chat_model(chat_model(tmp_path / "m") / "checkpoint-5")
    assert _ids(tmp_path) == ["m"]


def test_hub_cache(tmp_path: Path) -> None:
    """refs/main names the revision; its files are links."""
    hub_snapshot(tmp_path, "org/name", "aaa", CHAT_FILES, main=False)
    wanted = hub_snapshot(tmp_path, "org/name", "bbb", CHAT_FILES, main=True)
    os.utime(wanted, (1, 1))
    hub_snapshot(tmp_path, "gpt2", "ccc", CHAT_FILES, main=True)
    (tmp_path / "datasets--org--data" / "snapshots" / "ddd").mkdir(parents=True)
    write(tmp_path / "datasets--org--data" / "snapshots" / "ddd", {"config.json": {}})
    models = {card.id: card for card in _snapshot(tmp_path).models}
    assert sorted(models) == ["gpt2", "org/name"]
    assert models["org/name"].path == wanted
    assert models["org/name"].size_bytes == len(b"weights")


def test_hub_cache_below_the_models_folder(tmp_path: Path) -> None:
    """HF_HOME itself may be given: its cache is the folder hub/."""
    hub_snapshot(tmp_path / "hub", "org/name", "aaa", CHAT_FILES, main=True)
    assert _ids(tmp_path) == ["org/name"]


def test_hub_cache_without_a_ref(tmp_path: Path) -> None:
    """Without refs/main the newest snapshot is taken."""
    for age, revision in enumerate(("aaa", "ccc", "bbb")):
        os.utime(hub_snapshot(tmp_path, "org/name", revision, CHAT_FILES, main=False), (age, age))
    assert _snapshot(tmp_path).models[0].path.name == "bbb"


def test_an_interrupted_new_revision_does_not_hide_the_old_one(tmp_path: Path) -> None:
    """The ref moves before the files come; until they have, the old snapshot is served, and says so."""
    hub_snapshot(tmp_path, "org/name", "old", CHAT_FILES, main=False)
    hub_snapshot(tmp_path, "org/name", "new", {"config.json": {}}, main=True)
    write(tmp_path / "models--org--name" / "blobs", {"x.incomplete": b"half"})
    card = _snapshot(tmp_path).models[0]
    assert card.path.name == "old"
    assert card.evidence[-1].startswith(
        "revision new cannot be served (download incomplete: it has no weight"
    )


def test_hub_downloads_that_have_nothing_to_serve(tmp_path: Path) -> None:
    """A first download is broken with that reason; a tokenizer that somebody fetched is no model."""
    hub_snapshot(tmp_path, "org/started", "aaa", {"config.json": {}}, main=True)
    write(tmp_path / "models--org--started" / "blobs", {"x.incomplete": b"half"})
    write(tmp_path / "models--org--first" / "blobs", {"x.incomplete": b"half"})
    hub_snapshot(tmp_path, "org/tokenizer", "aaa", {"tokenizer.json": {}}, main=True)
    assert _ids(tmp_path) == []
    broken = _broken(tmp_path)
    assert sorted(broken) == ["org/first", "org/started"]
    assert all(reason.startswith("download incomplete: ") for reason in broken.values())


def test_a_ref_that_leads_outside(tmp_path: Path) -> None:
    """refs/main is compared with the snapshots there are; it never becomes a path."""
    hub_snapshot(tmp_path, "org/name", "aaa", CHAT_FILES, main=False)
    write(tmp_path / "models--org--name" / "refs", {"main": "../../../elsewhere"})
    assert _snapshot(tmp_path).models[0].path.name == "aaa"


def test_the_models_folder_is_a_model(tmp_path: Path) -> None:
    """A single model's folder is served under its own name, complete or not."""
    assert _ids(chat_model(tmp_path / "one")) == ["one"]
    assert list(_broken(sharded(tmp_path / "two", present=1))) == ["two"]
    hub_snapshot(tmp_path, "org/name", "aaa", CHAT_FILES, main=True)
    assert _ids(tmp_path / "models--org--name") == ["org/name"]


def test_a_stray_config_hides_no_models(tmp_path: Path) -> None:
    """A config.json beside models does not make one model of them."""
    chat_model(tmp_path / "m")
    write(tmp_path, {"config.json": {}})
    assert _ids(tmp_path) == ["m"]


def test_links_and_loops(tmp_path: Path) -> None:
    """Links are followed; a link back to the top, or to itself, neither hangs nor doubles the models."""
    models = tmp_path / "models"
    chat_model(models / "org" / "m")
    chat_model(tmp_path / "elsewhere")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    (models / "top").symlink_to(models)
    (models / "org" / "up").symlink_to(models)
    (models / "self").symlink_to(models / "self")
    (models / "dangling").symlink_to(tmp_path / "nothing")
    assert _ids(models) == ["linked", "org/m"]


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    """Bytes that are no text, and line breaks, are a problem told, never an id."""
    chat_model(tmp_path / "good")
    chat_model(tmp_path / os.fsdecode(b"bad\xff"))
    chat_model(tmp_path / "line\nbreak")
    assert _ids(tmp_path) == ["good"]
    broken = _broken(tmp_path)
    assert sorted(broken) == ["bad?", "line?break"]
    assert all("rename it" in reason for reason in broken.values())


def test_names_that_look_like_options(tmp_path: Path) -> None:
    """argparse would take the id, or its last part, for an option: no command line with it starts."""
    for name in ("good-", "org/go-od", "-m", "org/--model", "-org/m"):
        chat_model(tmp_path / name)
    write(tmp_path, {"-loose.gguf": b"x"})
    assert _ids(tmp_path) == ["good-", "org/go-od"]
    broken = _broken(tmp_path)
    assert sorted(broken) == ["-loose", "-m", "-org/m", "org/--model"]
    assert all("begins with a dash" in reason for reason in broken.values())


def test_an_unreadable_folder_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission denied is that folder's reason. (Tests may run as root, whom no permission stops.)"""
    chat_model(tmp_path / "good")
    (tmp_path / "locked").mkdir()
    listed = files.list_names

    def refuse(path: str) -> frozenset[str]:
        if path.endswith("/locked"):
            raise Unservable("the folder cannot be read: Permission denied")
        return listed(path)

    monkeypatch.setattr(walk_module, "list_names", refuse)
    assert _ids(tmp_path) == ["good"]
    assert _broken(tmp_path) == {"locked": "the folder cannot be read: Permission denied"}


def test_no_models_folder(tmp_path: Path) -> None:
    """The error names the folder, whether it is missing or a file."""
    (tmp_path / "file").touch()
    for name, why in (("missing", "No such file or directory"), ("file", "Not a directory")):
        with pytest.raises(ModelsDirUnreadable) as caught:
            _snapshot(tmp_path / name)
        assert caught.value.message == (
            f"The models folder {tmp_path / name} cannot be used: the folder cannot be read: {why}"
        )
