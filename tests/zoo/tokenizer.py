"""A real tokenizer of a few hundred tokens: each byte is one, and so is each marker of a template."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tests.zoo.specimen import HERE, Content

VOCABULARY_SIZE = 1024
"""Of a small model; the tokenizer has fewer tokens."""

_MARKER = re.compile(r"</?[|｜A-Za-z][^<>\s{}'\"+]{0,40}>|\[/?[A-Z_]{3,20}\]")
# What parsers look up in the vocabulary and no template spells out.
_FURTHER = (
    *("<unk>", "<s>", "</s>", "<think>", "</think>", "<|tool_calls_section_end|>", "<|constrain|>"),
    *("<|START_TEXT|>", "<|END_TEXT|>", "<answer>", "</answer>", "<seed:think>", "</seed:think>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
    *("<mm:think>", "</mm:think>"),
)


def files(template: str | None, *, longest: int = 131_072, apart: bool = False) -> dict[str, Content]:
    """tokenizer.json and tokenizer_config.json.

    Args:
        template: the chat template; None where the model has none.
        longest: input, in tokens.
        apart: the template is in chat_template.jinja, as newer versions of transformers write it.
    """
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
    }
    if template is not None and not apart:
        config["chat_template"] = template
    found: dict[str, Content] = {"tokenizer.json": tokenizer(), "tokenizer_config.json": config}
    if template is not None and apart:
        found["chat_template.jinja"] = template
    return found


@cache
def tokenizer() -> dict[str, Any]:
    """tokenizer.json: a byte-level BPE without merges, and every marker of every template."""
    alphabet = {char: number for number, char in enumerate(_byte_characters())}
    tokens = [
        {
            "id": len(alphabet) + number,
            "content": marker,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": marker in {"<s>", "</s>", "<unk>"},
        }
        for number, marker in enumerate(markers())
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "unk_token": None, "vocab": alphabet, "merges": []},
    }


@cache
def markers() -> tuple[str, ...]:
    """Every marker that a template of the zoo has, in a lasting order."""
    found = set(_FURTHER)
    for path in (HERE / "templates").glob("*.jinja"):
        found |= set(_MARKER.findall(path.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def letters() -> list[int]:
    """The tokens of the letters a to z."""
    alphabet = _byte_characters()
    return [alphabet.index(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]


def _byte_characters() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + number) for number in range(len(others))]
