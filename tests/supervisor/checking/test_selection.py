"""What a person may type after `local-llm check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm.checking.selection import select
from local_llm.errors import ModelNotFound
from local_llm.settings import Settings
from tests.fake_engine import write_fake_model


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two models and a broken one, in the working directory's `models`."""
    monkeypatch.chdir(tmp_path)
    write_fake_model(tmp_path / "models", "org/a")
    write_fake_model(tmp_path / "models", "b", kind="embedding")
    (write_fake_model(tmp_path / "models", "half") / "model.safetensors").unlink()
    write_fake_model(tmp_path / "elsewhere", "c")
    return Settings(models_dir=Path("models"), aliases={"gpt": "org/a"})


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("org/a", ["org/a"]),
        ("a", ["org/a"]),
        ("gpt", ["org/a"]),
        ("half", ["half"]),
        ("models/org/a", ["org/a"]),
        ("./models/b/", ["b"]),
        ("models", ["b", "half", "org/a"]),
        ("models/org", ["org/a"]),
        ("elsewhere/c", ["c"]),
        ("elsewhere", ["c"]),
    ],
)
def test_names_and_folders(settings: Settings, asked: str, found: list[str]) -> None:
    """A folder below the models folder has the name that the server gives it."""
    assert [each.id for each in select(asked, settings)[1]] == found


@pytest.mark.parametrize("asked", ["nothing", "models/nothing", "/nowhere/at/all", "b/config.json"])
def test_what_is_neither(settings: Settings, asked: str) -> None:
    """The error names what comes near, as for a client."""
    with pytest.raises(ModelNotFound):
        select(asked, settings)


def test_an_empty_folder_holds_none(settings: Settings, tmp_path: Path) -> None:
    """That is no error here."""
    (tmp_path / "empty").mkdir()
    assert select("empty", settings)[1] == []
