"""Which engine runs what the installed vLLM does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog import engine_choice
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.installed_vllm import InstalledVllm
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import TEMPLATE, chat_model

_HAS = InstalledVllm("0.99.0", frozenset({"KnownForCausalLM"}), frozenset(), frozenset())


def _card(
    tmp_path: Path, architecture: str, config: dict[str, Any] | None = None, **chosen: Any
) -> ModelCard:
    said = {"architectures": [architecture], **(config or {})}
    folder = chat_model(tmp_path / "m", **{"config.json": said, "tokenizer_config.json": TEMPLATE})
    return Catalog(Settings(models_dir=folder.parent, models={"m": chosen} if chosen else {})).find("m")


def test_an_architecture_that_vllm_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' own serve runs it, and the evidence says why; the settings may insist."""
    monkeypatch.setattr(engine_choice, "installed_vllm", lambda _: _HAS)
    card = _card(tmp_path, "NovelForCausalLM")
    assert (card.kind, card.engine) == (Kind.CHAT, Engine.TRANSFORMERS)
    assert card.evidence[-1] == (
        "vLLM 0.99.0 does not have NovelForCausalLM; transformers' own serve runs it"
    )
    assert _card(tmp_path, "NovelForCausalLM", engine="vllm").engine is Engine.VLLM
    assert _card(tmp_path, "KnownForCausalLM").engine is Engine.VLLM
    assert _card(tmp_path, "LlamaForCausalLM").engine is Engine.VLLM  # not even asked


def test_code_of_its_own_is_left_to_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers' serve takes classes from transformers only."""
    monkeypatch.setattr(engine_choice, "installed_vllm", lambda _: _HAS)
    own = {"auto_map": {"AutoModelForCausalLM": "modeling.Novel"}}
    assert _card(tmp_path, "NovelForCausalLM", own).engine is Engine.VLLM


def test_where_nothing_is_known_of_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays the engine; the Python that is asked is the model's."""
    asked: list[Path | None] = []
    monkeypatch.setattr(engine_choice, "installed_vllm", asked.append)
    assert _card(tmp_path, "NovelForCausalLM", python="/opt/p").engine is Engine.VLLM
    assert asked == [Path("/opt/p")]
