"""Where settings come from, and errors that say which source, which key and what is allowed.

A YAML file, then `LOCAL_LLM_…` variables, then flags; the later wins, key by key. In the environment two
underscores go one level down (`LOCAL_LLM_QUEUE__MAX_WAITING=64`), and values are read as YAML,
API keys as they are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from local_llm.settings import Settings
from local_llm.settings_types import MISPLACED

ENVIRONMENT_PREFIX = "LOCAL_LLM_"
TEXTS = frozenset({"LOCAL_LLM_HOST", "LOCAL_LLM_MODELS_DIR", "LOCAL_LLM_STATE_DIR"})
"""Taken as they are: as YAML, the host `::` would be a mapping."""

NOT_SETTINGS = frozenset({"LOCAL_LLM_CONFIG", "LOCAL_LLM_KEY", "LOCAL_LLM_WORKER_KEY"})
"""Variables with our prefix that mean something else: the file's own name, the key that `local-llm status`
brings, a worker's key."""

_MERGE_KEY = "<<"

SECRET = frozenset({"api_keys", "env"})
"""Values of these are in no message."""


class _Loader(yaml.SafeLoader):
    """Tells where a value stands that only looks like a date or a number: PyYAML's own error does not."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError):  # 2020-13-45, `!!bool perhaps`, `!!timestamp x`
            raise yaml.constructor.ConstructorError(
                problem="it reads as a date or a number, and is none: in quotes it would be a text",
                problem_mark=node.start_mark,
            ) from None


class SettingsError(Exception):
    """Settings that cannot be used. The message has a line per mistake, for people."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Values and, for each key path, what to call the place they came from."""

    values: dict[str, Any]
    name: str
    places: dict[tuple[str, ...], str]

    def place(self, path: tuple[str, ...]) -> str | None:
        """Where `path` was set here, or None if it was not."""
        if not _has(self.values, path):
            return None
        known = [path[:length] for length in range(len(path), 0, -1) if path[:length] in self.places]
        return self.places[known[0]] if known else self.name


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    content: bytes | None = None,
) -> Settings:
    """Reads all sources.

    Args:
        file: YAML; None if there is none. It must exist if named.
        environment: variables, of which those beginning with LOCAL_LLM_ count.
        flags: by top-level key; None values were not given.
        content: of the file, if it was read already.

    Raises:
        SettingsError: one line per mistake, naming source, key and what is allowed.
    """
    sources = [_from_flags(flags or {}), _from_environment(environment or {})]
    if file is not None:
        sources.append(_from_file(file, read_settings_file(file) if content is None else content))
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged = _merge(merged, source.values)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(each, sources) for each in error.errors())) from None


def read_settings_file(file: Path) -> bytes:
    """What is in it.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None


def _from_flags(flags: Mapping[str, Any]) -> _Source:
    values = {key: value for key, value in flags.items() if value is not None}
    places: dict[tuple[str, ...], str] = {
        (key,): f"--{'models' if key == 'models_dir' else key.replace('_', '-')}" for key in values
    }
    return _Source(values, "the command line", places)


def _from_environment(environment: Mapping[str, str]) -> _Source:
    values: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_SETTINGS:
            continue
        path = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
        places[path] = f"the environment's {variable}"
        read = _secret_value if path[0] in SECRET else _environment_value
        values = _merge(values, _nested(path, read(variable, text)))
    return _Source(values, "the environment", places)


def _environment_value(variable: str, text: str) -> Any:
    if variable in TEXTS and text != "null":
        return text
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError:  # without the text: a section may have secrets in it
        raise SettingsError(f"the environment's {variable}: cannot be read as a YAML value") from None


def _secret_value(variable: str, text: str) -> Any:
    """A key as it is written, or a list of them: as YAML, `0123` would be 83, and `key #2` only `key`."""
    if not text.lstrip().startswith("["):
        return text
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes nothing but texts
    except yaml.YAMLError:
        raise SettingsError(f"the environment's {variable}: cannot be read as a YAML list") from None


def _from_file(file: Path, content: bytes) -> _Source:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
        repeated = list(_repeated(node, ()))
        lines = _lines(node, ())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{file}, line {line}: is no YAML: {error.problem or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{file}: is no YAML: {error}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: must be a mapping of keys to values, not {_type_name(values)}")
    if repeated:
        raise SettingsError(
            "\n".join(f"{file}, line {line}: {key}: is there twice" for key, line in repeated)
        )
    places = {path: f"{file}, line {line}" for path, line in lines.items()}
    return _Source({str(key): value for key, value in values.items()}, str(file), places)


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """The line of every key in a YAML document."""
    found: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            found[below] = key.start_mark.line + 1
            found |= _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = (*path, str(index))
            found[below] = value.start_mark.line + 1
    return found


def _repeated(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Keys that a mapping has twice, with the later one's line: YAML would silently take that one only."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        if name in seen and name != _MERGE_KEY:
            yield ".".join((*path, name)), key.start_mark.line + 1
        seen.add(name)
        yield from _repeated(value, (*path, name))


def _explain(error: Any, sources: list[_Source]) -> str:
    path = tuple(str(part) for part in error["loc"])
    if error["type"] == MISPLACED:
        path += error["ctx"]["path"]
    places = [source.place(path[:length]) for length in range(len(path), 0, -1) for source in sources]
    place = next((each for each in places if each is not None), "the defaults")
    key = ".".join(path) or "the settings"
    if error["type"] == "extra_forbidden":
        return f"{place}: {key}: there is no such key. {_allowed_keys(path)}"
    message = _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    tell = error["type"] not in ("value_error", MISPLACED) and SECRET.isdisjoint(path)
    given = f" (it is {_shown(error['input'])})" if tell else ""
    return f"{place}: {key}: {message[0].lower()}{message[1:]}{given}"


_WORDS = {
    "tuple_type": "should be a list: [first, second]",
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "path_type": "should be a path",
}
"""In place of pydantic's, which name Python's types."""


def _allowed_keys(path: tuple[str, ...]) -> str:
    known = _keys_at(path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Allowed: {', '.join(known)}"


def _keys_at(path: tuple[str, ...]) -> list[str]:
    """The keys that the section at `path` has."""
    section: Any = Settings
    for part in path:
        annotation = section.model_fields[part].annotation if _is_section(section) else None
        if annotation is not None and not _is_section(annotation):
            section = annotation.__args__[1]  # dict[str, Section]: `part` was a key of it, or comes next
            if _is_section(section):
                section = {"*": section}
        elif isinstance(section, dict):
            section = section["*"]
        else:
            section = annotation
    return sorted(section.model_fields) if _is_section(section) else []


def _is_section(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = (
            _merge(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
        )
    return merged


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _has(values: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if isinstance(values, Mapping) and part in values:
            values = values[part]
        elif isinstance(values, list | tuple) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return False
    return True


def _shown(value: Any) -> str:
    """Of what has parts, which may hold secrets, only the kind."""
    return _type_name(value) if isinstance(value, dict | list | tuple | set) else repr(value)


def _type_name(value: Any) -> str:
    return _IN_YAML.get(type(value), type(value).__name__)


_IN_YAML = {
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    set: "a set",
    str: "a text",
    int: "a number",
}
