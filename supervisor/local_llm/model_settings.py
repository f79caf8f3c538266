"""What can be set for one model, or for all whose id matches a glob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from local_llm import placeholders
from local_llm.catalog.card import Engine, Kind
from local_llm.settings_types import AutoOff, Bytes, Count, Seconds, Section

_WILDCARD = re.compile(r"\*|\?|\[[^\]]*\]")

ADDED_UP = frozenset({"args", "env"})
"""Keys to which a more specific entry adds, rather than replacing what the others say."""


class ModelSettings(Section):
    """For one model, or all whose id matches a glob. None means: as for every model of its engine."""

    # The keys that are null, which in one entry is as good as absent, and among several is not.
    _nulls: frozenset[str] = PrivateAttr(default=frozenset())

    engine: Engine | None = Field(None, description="Overrides what the folder says.")
    kind: Kind | None = Field(None, description="Overrides what the folder says.")
    args: tuple[str, ...] = Field((), description="Further arguments, after the engine's own.")
    env: dict[str, str] = Field(default_factory=dict, description="Further environment.")
    python: Path | None = Field(None, description="The Python that runs it, in place of the engine's.")
    context: Count | None = Field(None, description="The longest input and answer together, in tokens.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] | None = Field(
        None, description="What its weights are computed in."
    )
    gpus: Count | tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="How many GPUs it spreads over, or a list of which: 2, or [0, 3]."
    )
    aliases: tuple[str, ...] = Field((), description="Further names it answers to; for an exact id only.")
    prompt: str | None = Field(
        None,
        description="An embedding model's prompt for inputs that name none: the name of one of its own "
        "prompts, or the text itself.",
    )
    idle_unload_seconds: Seconds | None = Field(
        None, description="As residency.idle_unload_seconds, for this model; 0: never."
    )
    keep: bool | None = Field(None, description="As residency.keep: not stopped for others.")
    start: Literal["balanced", "fast", "full"] | None = Field(
        None, description="As engines.vllm.start, for this model."
    )
    trust_remote_code: bool | None = Field(
        None, description="Let it run Python code that lies in its folder. Read that code first."
    )
    allow_pickle: bool | None = Field(
        None,
        description="Serve it though its weights are only pickles (.bin), which can run code as they load.",
    )
    memory_bytes: Bytes | None = Field(
        None,
        description="What it needs of residency.memory_bytes; none: estimated from the size of its weights.",
    )
    fit: AutoOff = Field(
        "auto",
        description="auto: refused at once if it cannot fit the device; off: always tried.",
    )
    command: tuple[str, ...] = Field(
        (),
        description="With engine: command, any server that speaks HTTP: program and arguments, in which "
        "{path}, {port}, {id}, {host} and {key} are replaced.",
    )
    path: Path | None = Field(
        None, description="With engine: command, what {path} means for a model that has no folder."
    )
    ready_path: Annotated[str, Field(pattern=r"^/")] = Field(
        "/health", description="With engine: command, the path that answers 200 once it is ready."
    )
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGKILL"] = Field(
        "SIGTERM", description="With engine: command, how it is asked to end."
    )

    @property
    def nulls(self) -> frozenset[str]:
        """The keys that were set to null, to undo what a less specific entry says."""
        return self._nulls

    @model_validator(mode="wrap")
    @classmethod
    def _null_is_the_default(cls, data: Any, read: ModelWrapValidatorHandler[ModelSettings]) -> ModelSettings:
        if not isinstance(data, Mapping):
            return read({} if data is None else data)
        nulls = frozenset(key for key in data if data[key] is None and key in cls.model_fields)
        made = read({key: value for key, value in data.items() if key not in nulls})
        made._nulls = nulls  # noqa: SLF001 - its own
        return made

    @field_validator("gpus", mode="wrap")
    @classmethod
    def _gpus_are_a_count_or_a_list(cls, value: Any, read: Any) -> Any:
        try:
            read_as = read(value)
        except ValidationError:
            read_as = None
        if read_as is None or isinstance(value, bool):
            raise ValueError(f"should be a count or a list of numbers: 2, or [0, 3], not {value!r}")
        if isinstance(read_as, tuple) and len(set(read_as)) < max(1, len(read_as)):
            raise ValueError(f"should name at least one GPU, and each once, not {value!r}")
        return read_as

    @field_validator("command")
    @classmethod
    def _command_can_be_filled_in(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        unknown = placeholders.unknown(command)
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in placeholders.PLACEHOLDERS)
            raise ValueError(f"nothing is known to put in place of {{{unknown[0]}}}: there are {known}")
        if command and not command[0].strip():
            raise ValueError("its first word should be the program, and is empty")
        return command

    @model_validator(mode="after")
    def _command_belongs_to_its_engine(self) -> ModelSettings:
        if self.command and self.engine not in (None, Engine.COMMAND):
            raise ValueError(f"command is for engine: command, not {self.engine.value}")
        return self


@dataclass(frozen=True, slots=True)
class Origin:
    """What one entry contributes to a model's settings.

    Attributes:
        key: of `ModelSettings`.
        value: of an environment, only the variables that no more specific entry overrides.
        pattern: the entry's id or glob.
    """

    key: str
    value: Any
    pattern: str


def merged(models: Mapping[str, ModelSettings], model_id: str) -> ModelSettings:
    """What all matching entries say of one model: of the same key, the most specific entry's value counts.

    The exact id is the most specific; of globs, the one with more characters that are no wildcards, then
    the later. Arguments of all matching entries follow one another, the least specific first, since the
    last of an argument wins; environments add up the same way. A key that is null in an entry is what it
    would be if no less specific entry had said anything.

    Args:
        models: by id or glob.
        model_id: the model's.
    """
    said: dict[str, Any] = {}
    for origin in origins(models, model_id):
        said[origin.key] = _added(origin.key, said.get(origin.key), origin.value)
    return ModelSettings.model_construct(**said) if said else _NOTHING_SAID


# Of nearly all of a thousand models; making one takes 0.05 ms.
_NOTHING_SAID = ModelSettings.model_construct()


def origins(models: Mapping[str, ModelSettings], model_id: str) -> list[Origin]:
    """Where each value of a model's merged settings comes from, the least specific entry first.

    Args:
        models: by id or glob.
        model_id: the model's.
    """
    found: list[Origin] = []
    for pattern, each in matching(models, model_id):
        given = {
            key: getattr(each, key) for key in ModelSettings.model_fields if key in each.model_fields_set
        }
        overridden = each.nulls | (given.keys() - ADDED_UP)
        found = [_left(origin, given) for origin in found if origin.key not in overridden]
        found += [Origin(key, value, pattern) for key, value in given.items()]
    return [origin for origin in found if origin.key not in ADDED_UP or origin.value]


def _left(origin: Origin, above: Mapping[str, Any]) -> Origin:
    """What of an origin's value still counts below a more specific entry's."""
    if origin.key != "env" or "env" not in above:
        return origin
    return replace(
        origin, value={name: each for name, each in origin.value.items() if name not in above["env"]}
    )


def _added(key: str, below: Any, value: Any) -> Any:
    if below is None or key not in ADDED_UP:
        return value
    return {**below, **value} if isinstance(value, dict) else (*below, *value)


def matching(models: Mapping[str, ModelSettings], model_id: str) -> list[tuple[str, ModelSettings]]:
    """The entries that apply to a model, with their patterns, the most specific last."""
    found = [(pattern, each) for pattern, each in models.items() if matches(pattern, model_id)]
    return sorted(found, key=lambda entry: (entry[0] == model_id, len(_WILDCARD.sub("", entry[0]))))


def matches(pattern: str, model_id: str) -> bool:
    """Whether an entry of that id or glob applies to a model."""
    return pattern == model_id or fnmatchcase(model_id, pattern)


def is_glob(pattern: str) -> bool:
    """Whether an entry may apply to more than one model."""
    return _WILDCARD.search(pattern) is not None
