"""Models of which the settings give the command, with and without a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import LLAMA, chat_model, write

COMMAND: dict[str, Any] = {"engine": "command", "command": ["server", "--port", "{port}"]}
WITH_PATH: dict[str, Any] = {"engine": "command", "command": ["server", "-m", "{path}", "--port", "{port}"]}


def _look(models_dir: Path, **models: Any) -> tuple[dict[str, ModelCard], dict[str, str]]:
    snapshot = Catalog(Settings(models_dir=models_dir, models=models)).snapshot()
    return {card.id: card for card in snapshot.models}, {each.id: each.reason for each in snapshot.broken}


def test_without_a_folder(tmp_path: Path) -> None:
    """An exact id is enough; a glob names no model."""
    models, broken = _look(
        tmp_path, **{"org/own": COMMAND, "ranker": {**COMMAND, "kind": "reranker"}, "x-*": COMMAND}
    )
    assert broken == {}
    assert set(models) == {"org/own", "ranker"}
    assert (models["org/own"].kind, models["org/own"].engine) == (Kind.CHAT, Engine.COMMAND)
    assert models["org/own"].aliases == ("own",)
    assert models["org/own"].evidence[0] == "the settings give its command"
    assert models["ranker"].kind is Kind.RERANKER


def test_a_path_of_the_settings(tmp_path: Path) -> None:
    """It must be there, and the card changes with it."""
    elsewhere = tmp_path / "elsewhere.bin"
    (tmp_path / "models").mkdir()
    own = {**WITH_PATH, "path": str(elsewhere)}
    assert _look(tmp_path / "models", own=own)[1]["own"] == (
        f"its command needs {{path}}, and {elsewhere} is not there"
    )
    elsewhere.write_bytes(b"weights")
    first = _look(tmp_path / "models", own=own)[0]["own"]
    assert first.path == elsewhere
    elsewhere.write_bytes(b"other weights")
    assert _look(tmp_path / "models", own=own)[0]["own"].fingerprint != first.fingerprint


def test_a_path_that_comes_later(tmp_path: Path) -> None:
    """A running server notices the folder, as for any model."""
    catalog = Catalog(Settings(models_dir=tmp_path, models={"own": WITH_PATH}))
    assert catalog.snapshot().models == ()
    write(tmp_path / "own", {"model.strange": b"weights"})
    assert catalog.find("own").path == tmp_path / "own"


def test_a_folder_that_we_cannot_serve(tmp_path: Path) -> None:
    """The command may; but not what is still on its way."""
    write(tmp_path / "onnx", {"config.json": LLAMA, "model.onnx": b"w"})
    write(tmp_path / "coming", {"config.json": LLAMA, "model.onnx.incomplete": b"w"})
    models, broken = _look(tmp_path, **{"*": WITH_PATH})
    assert set(models) == {"onnx"}
    assert (models["onnx"].kind, models["onnx"].path) == (Kind.CHAT, tmp_path / "onnx")
    assert broken["coming"].startswith("download incomplete")


def test_a_folder_that_we_could_serve(tmp_path: Path) -> None:
    """Its kind is what the folder says."""
    chat_model(tmp_path / "chat")
    card = _look(tmp_path, chat=WITH_PATH)[0]["chat"]
    assert (card.kind, card.engine, card.context_length) == (Kind.CHAT, Engine.COMMAND, 4096)
    assert "the settings choose command as its engine" in card.evidence
