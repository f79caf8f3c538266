"""Fields of config.json, whatever they hold: a field of the wrong type or size counts as absent.

What a published config leaves out, transformers' configuration class of the family fills in (gemma-3-4b
says nothing of its heads). `config_defaults.json` has those defaults, from transformers 5.19.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_llm.catalog.files import INDEX_LIMIT_BYTES, Folder, Unservable

_NESTED_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")
_MOST_NESTED = 3
# Larger than any vocabulary, width or context; products of a few stay cheap.
_LARGEST = 1 << 31
MOST_LAYERS = 10_000


class Fields:
    """One section of a config, or the defaults of its family.

    Args:
        section: a JSON object.
        fallback: consulted for what the section does not say.
    """

    def __init__(self, section: Mapping[str, object], fallback: Mapping[str, object] | None = None) -> None:
        self._section = section
        self._fallback = fallback or {}

    def get(self, *names: str) -> object:
        """The value under the first of `names` that the section has, else that the family has; or None.

        A null counts as said: `"sliding_window": null` turns the family's default off.
        """
        for source in (self._section, self._fallback):
            for name in names:
                if name in source:
                    return source[name]
        return None

    def says(self, name: str) -> bool:
        """Whether the section itself has a value of that name that is not null."""
        return self._section.get(name) is not None

    def count(self, *names: str) -> int | None:
        """A positive whole number, or None. 256.0 is one too."""
        value = self.get(*names)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if type(value) is int and 0 < value <= _LARGEST else None

    def number(self, *names: str) -> float | None:
        """A positive finite number, or None."""
        value = self.get(*names)
        return float(value) if isinstance(value, (int, float)) and 0 < value <= _LARGEST else None

    def text(self, *names: str) -> str | None:
        """A text, or None."""
        value = self.get(*names)
        return value if isinstance(value, str) else None

    def is_true(self, *names: str) -> bool:
        """Whether it says `true`."""
        return self.get(*names) is True

    def words(self, *names: str) -> Sequence[str]:
        """A list of texts, one a layer; empty if it is anything else."""
        value = self.get(*names)
        if not isinstance(value, list) or len(value) > MOST_LAYERS:
            return ()
        return value if all(isinstance(each, str) for each in value) else ()

    def numbers(self, *names: str) -> Sequence[int]:
        """A list of whole numbers, one a layer; empty if it is anything else."""
        value = self.get(*names)
        if not isinstance(value, list) or len(value) > MOST_LAYERS:
            return ()
        return value if all(type(each) is int and 0 <= each <= _LARGEST for each in value) else ()

    def section(self, *names: str) -> Fields:
        """A nested section, without a family's defaults; empty if there is none."""
        value = self.get(*names)
        return Fields(value if isinstance(value, dict) else {})

    @property
    def model_type(self) -> str:
        """Of the section; empty if it does not say."""
        return self.text("model_type") or ""


def read_object(folder: str, *names: str) -> Mapping[str, object]:
    """The JSON object in the first of the files `names` that can be read; empty if none can."""
    for name in names:
        try:
            return Folder(folder).read_object(name, INDEX_LIMIT_BYTES)
        except Unservable:  # noqa: PERF203 - there are two at most
            continue
    return {}


def text_fields(config: Mapping[str, object]) -> Fields:
    """The part of a config that describes the language model, which multimodal models nest."""
    section, family = config, ""
    for _ in range(_MOST_NESTED):
        model_type = section.get("model_type")
        family = model_type if isinstance(model_type, str) else family
        name = next((each for each in _NESTED_TEXT if isinstance(section.get(each), dict)), None)
        if name is None:
            break
        inner = section[name]
        default = _defaults().get(family, {}).get(name)
        section, family = inner if isinstance(inner, dict) else {}, default or ""
    return Fields(section, _defaults().get(family, {}))


@functools.cache
def _defaults() -> Mapping[str, Mapping[str, str]]:
    """Defaults by model_type. Values are whole numbers, texts and `true`; readers check them anyway."""
    text = Path(__file__).with_name("config_defaults.json").read_text("utf-8")
    known: Mapping[str, Mapping[str, str]] = json.loads(text)
    return known
