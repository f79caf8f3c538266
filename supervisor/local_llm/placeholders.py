"""What stands in braces in the command of an own server, and what it is replaced by. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

PLACEHOLDERS: Mapping[str, str] = {
    "path": "the model's folder, or its GGUF file",
    "port": "where it is to listen",
    "host": "the address that it is to listen on",
    "id": "the model's id",
    "key": "a secret of this worker's, which it may demand as `Authorization: Bearer`",
}


def unknown(words: Iterable[str]) -> list[str]:
    """What stands in braces and means nothing; braces around anything but a word are left alone."""
    found = (name for word in words for name in _PLACEHOLDER.findall(word))
    return [name for name in dict.fromkeys(found) if name not in PLACEHOLDERS]


def names(words: Iterable[str], placeholder: str) -> bool:
    """Whether `placeholder` is used."""
    return any(f"{{{placeholder}}}" in word for word in words)


def filled(words: Iterable[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """The words with their placeholders replaced, each once: a value may have braces of its own.

    Args:
        words: of the command.
        values: by placeholder.
    """
    return tuple(_PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word) for word in words)
