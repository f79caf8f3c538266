"""The form of a file of families, the project's own and the user's, and what is wrong with the latter."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from local_llm.catalog.chat_templates import Thinks

_LARGEST_FILE_BYTES = 4 << 20

# What asks vLLM for a parser has keys of its own, and remote code is the user's to allow, model by model.
_ARGS_ELSEWHERE = {
    "--tool-call-parser": "use the key tool_call_parser",
    "--reasoning-parser": "use the key reasoning_parser",
    "--enable-auto-tool-choice": "it goes with tool_call_parser by itself",
    "--trust-remote-code": "use trust_remote_code in the settings of the model",
}


class FamiliesError(ValueError):
    """A file of families cannot be used; the message names the file and the entry."""


class Markers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Texts in the chat template: all of the first, one of the second, none of the third."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must hold; what is left out need not.

    Attributes:
        architectures: one of them is ``architectures[0]``.
        model_types: one of them is config.json's ``model_type``.
        model_name: a regular expression that is found in the model's name, whatever its case.
        template: markers in the chat template.
        thinks: what the generation prompt says of thinking is one of these.
        files: names or globs; the folder has a file for each.
        response_template: fields that tokenizer_config.json's ``response_template`` has.
    """

    architectures: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    model_name: str | None = None
    template: Markers | None = None
    thinks: tuple[Thinks, ...] = ()
    files: tuple[str, ...] = ()
    response_template: tuple[str, ...] = ()


class Entry(Condition, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A family: by what it is known, and what vLLM needs for it.

    Attributes:
        name: of the family, for people.
        built_in_template: vLLM itself has its chat format; without this a model must have a chat template.
        tool_call_parser: vLLM's name of it.
        reasoning_parser: the same.
        reasoning_when: what must hold besides for the reasoning parser.
        args: further arguments for vLLM.
        source: where that is said.
    """

    name: str
    built_in_template: bool = False
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    reasoning_when: Condition | None = None
    args: tuple[str, ...] = ()
    source: str = ""


class NeededTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By parser, the tokens that it does not do without."""

    tool_call_parser: dict[str, tuple[str, ...]] = {}
    reasoning_parser: dict[str, tuple[str, ...]] = {}


class FamiliesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file; `families.json` says of itself what the keys mean."""

    families: tuple[Entry, ...]
    opening_reasoning_parsers: frozenset[str] = frozenset()
    needed_tokens: NeededTokens = NeededTokens()
    about: Any = None


def read_families(path: Path) -> FamiliesFile:
    """The user's file.

    Raises:
        FamiliesError: naming the file, the entry and what is allowed.
    """
    try:
        with path.expanduser().open("rb") as file:
            text = file.read(_LARGEST_FILE_BYTES)
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise FamiliesError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise FamiliesError(f"{path}: is no {'JSON' if path.suffix == '.json' else 'YAML'}: {said}") from None
    try:
        found = msgspec.convert(content, type=FamiliesFile)
    except msgspec.ValidationError as error:
        raise FamiliesError(f"{path}: {_explain(str(error), content)}") from None
    for index, entry in enumerate(found.families):
        mistake = _mistake(entry, [each.name for each in found.families[:index]])
        if mistake is not None:
            raise FamiliesError(f"{path}: families[{index}] ({entry.name!r}): {mistake}")
    return found


_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$\.?(?P<where>.*?)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`$")
_TYPE = re.compile(r"^Expected `(.*)`, got `(.*)`$")
_TYPES = {"array": "a list", "object": "a mapping", "str": "a text", "int": "a number", "null": "nothing"}


def _explain(error: str, content: object) -> str:
    """msgspec's message with the place first, the family's name, and what there may be."""
    found = _AT.match(error)
    what, where = (found["what"], found["where"] or "") if found else (error, "")
    if not where and not isinstance(content, dict):
        return "should be a mapping with the key families, a list"
    said = _in_words(what, where)
    number = re.match(r"families\[(\d+)\]", where)
    entries = content.get("families") if isinstance(content, dict) else None
    if number is not None and isinstance(entries, list) and isinstance(entries[int(number[1])], dict):
        where += f" ({entries[int(number[1])].get('name', 'without a name')!r})"
    return f"{where}: {said}" if where else said


def _in_words(what: str, where: str) -> str:
    if unknown := _UNKNOWN.match(what):
        allowed = ", ".join(sorted(_keys(where).__struct_fields__))
        return f"there is no such key: {unknown[1]}. Allowed: {allowed}"
    if missing := _MISSING.match(what):
        return f"the key {missing[1]} is missing"
    if types := _TYPE.match(what):
        wanted = " or ".join(_TYPES.get(each, each) for each in types[1].split(" | "))
        return f"should be {wanted}, not {_TYPES.get(types[2], types[2])}"
    if where.rpartition(".")[2].startswith("thinks"):
        return f"should be one of {', '.join(each.value for each in Thinks)}"
    return what[:1].lower() + what[1:]


def _keys(where: str) -> type[msgspec.Struct]:
    """What kind of thing stands at a place of the file."""
    if where.startswith("needed_tokens"):
        return NeededTokens
    if ".template" in where:
        return Markers
    if ".reasoning_when" in where:
        return Condition
    return Entry if where.startswith("families[") else FamiliesFile


def _mistake(entry: Entry, before: Sequence[str]) -> str | None:
    """What is wrong with an entry of the right form; None if nothing is."""
    if entry.name in before:
        return "a family of this name is there already"
    patterns = [entry.model_name, entry.reasoning_when.model_name if entry.reasoning_when else None]
    try:
        list(map(re.compile, filter(None, patterns)))
    except re.error as error:
        return f"model_name is no regular expression ({error})"
    for arg in entry.args:
        flag = arg.partition("=")[0].replace("_", "-")
        if flag in _ARGS_ELSEWHERE:
            return f"args may not have {flag}: {_ARGS_ELSEWHERE[flag]}"
    known = Condition.__struct_fields__
    if not any(getattr(entry, key) for key in known):
        return f"it would be every model's: say by what it is known ({', '.join(known)})"
    return None
