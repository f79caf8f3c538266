"""A parser whose tokens the tokenizer lacks answers every chat with an error, so it is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llm.catalog.card import ModelCard
from local_llm.catalog.files import Folder
from local_llm.catalog.records import examine_location
from local_llm.catalog.vocabulary import certainly_lacks
from local_llm.catalog.walk import Location
from local_llm.settings import Settings
from tests.supervisor.catalog import chat_template_texts as texts
from tests.supervisor.catalog.folders import write

WORDS = {f"word{number}": number for number in range(30_000)}
THINK = ("<think>", "</think>")


def _tokenizer(*added: str, words: dict[str, int] = WORDS, ascii_only: bool = False) -> str:
    content = {"added_tokens": [{"content": each} for each in added], "model": {"vocab": words}}
    return json.dumps(content, ensure_ascii=ascii_only)


def _lacks(folder: Path, *tokens: str) -> bool:
    opened = Folder(str(folder))
    opened.list()
    return certainly_lacks(opened, tokens)


def test_tokens_are_looked_for_everywhere(tmp_path: Path) -> None:
    """Among the added ones, in the vocabulary behind them, and in older files beside it."""
    folder = write(tmp_path, {"tokenizer.json": _tokenizer("<think>")})
    assert not _lacks(folder, "<think>")
    assert _lacks(folder, *THINK)
    write(folder, {"tokenizer.json": _tokenizer("<think>", words={**WORDS, "</think>": 1})})
    assert not _lacks(folder, *THINK)
    write(folder, {"tokenizer.json": _tokenizer("<think>"), "added_tokens.json": {"</think>": 7}})
    assert not _lacks(folder, *THINK)


@pytest.mark.parametrize("ascii_only", [False, True])
def test_letters_that_json_may_escape(ascii_only: bool, tmp_path: Path) -> None:
    """DeepSeek's tokens are written with full-width signs."""
    token = "<｜tool▁calls▁begin｜>"
    folder = write(tmp_path, {"tokenizer.json": _tokenizer(token, ascii_only=ascii_only)})
    assert not _lacks(folder, token)


def test_what_proves_nothing(tmp_path: Path) -> None:
    """No tokenizer.json, one without a vocabulary, or one that is no file."""
    assert not _lacks(tmp_path, *THINK)
    assert not _lacks(write(tmp_path / "bare", {"tokenizer.json": {}}), *THINK)
    assert not _lacks(write(tmp_path / "empty", {"tokenizer.json": _tokenizer(words={})}), *THINK)
    assert _lacks(write(tmp_path / "small", {"tokenizer.json": _tokenizer(words={"a": 1})}), *THINK)
    (tmp_path / "folder" / "tokenizer.json").mkdir(parents=True)
    assert not _lacks(tmp_path / "folder", *THINK)


@pytest.mark.parametrize(("added", "expected"), [(THINK, ("hermes", "deepseek_r1")), ((), ("hermes", None))])
def test_parsers_of_a_fine_tune(
    added: tuple[str, ...], expected: tuple[str, str | None], tmp_path: Path
) -> None:
    """A Qwen2.5 that was taught to think has the template's <think>, and may not have it as a token."""
    folder = write(
        tmp_path / "m",
        {
            "config.json": {"architectures": ["Qwen2ForCausalLM"]},
            "chat_template.jinja": texts.JSON_TOOLS + texts.ALWAYS_THINKS,
            "tokenizer.json": _tokenizer(*added),
            "model.safetensors": b"weights",
        },
    )
    location = Location("m", str(folder), (str(folder),))
    card = examine_location(location, Settings(models_dir=tmp_path)).outcome
    assert isinstance(card, ModelCard)
    assert card.family is not None
    assert (card.family.tool_call_parser, card.family.reasoning_parser) == expected
    assert ("the tokenizer lacks what the parser deepseek_r1 needs" in card.family.evidence) is (not added)
