"""Python code that a model brings in its folder. It runs only where the settings say so, model by model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from local_llm.catalog.files import CONFIG_LIMIT_BYTES, INDEX_LIMIT_BYTES, Folder, Unservable

# Each may have an `auto_map`: from transformers' class to one in a file of the folder.
_MAPPING_FILES = (
    ("config.json", CONFIG_LIMIT_BYTES),
    ("tokenizer_config.json", INDEX_LIMIT_BYTES),
    ("processor_config.json", CONFIG_LIMIT_BYTES),
    ("preprocessor_config.json", CONFIG_LIMIT_BYTES),
)
_LONGEST_NAME = 200


def own_code(folder: Path) -> dict[str, tuple[str, ...]]:
    """Which files name code of the model's own, and which files that is in; empty if there is none.

    A name such as ``org/repo--modeling_foo.Foo`` means code in another repository, and is given so.
    """
    found = {}
    place = Folder(str(folder))
    for name, limit_bytes in _MAPPING_FILES:
        try:
            mapped = place.read_object(name, limit_bytes).get("auto_map")
        except Unservable:
            continue
        files = tuple(sorted(set(_files(mapped))))
        if files:
            found[name] = files
    return found


def how_to_allow(model_id: str, folder: Path) -> str:
    """For people: which code a model wants to run, and the line of the settings that lets it."""
    named = "; ".join(f"{', '.join(files)} (in {name})" for name, files in own_code(folder).items())
    line = f"models: {{{json.dumps(model_id, ensure_ascii=False)}: {{trust_remote_code: true}}}}"
    which = f": {named}" if named else ""
    return (
        f"It brings Python code of its own{which}. Read that code, and if you trust it, allow it in the "
        f"settings: {line}"
    )


def _files(mapped: object) -> Iterator[str]:
    """The files of an auto_map's values, which are ``module.Class``, or lists of such and null."""
    for value in mapped.values() if isinstance(mapped, dict) else ():
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, str) and "." in each and each.isprintable() and len(each) < _LONGEST_NAME:
                yield f"{each.rpartition('.')[0].replace('.', '/')}.py"
