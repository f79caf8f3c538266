"""What can be set for one model, or for all whose id matches a glob."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from local_llm.catalog.card import Engine, Kind
from local_llm.settings_types import AutoOff, Bytes, Count, Seconds, Section

_WILDCARD = re.compile(r"\*|\?|\[[^\]]*\]")


class ModelSettings(Section):
    """For one model, or all whose id matches a glob. None means: as for every model of its engine."""

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

    @model_validator(mode="after")
    def _command_belongs_to_its_engine(self) -> ModelSettings:
        if self.command and self.engine not in (None, Engine.COMMAND):
            raise ValueError(f"command is for engine: command, not {self.engine.value}")
        return self


def merged(models: Mapping[str, ModelSettings], model_id: str) -> ModelSettings:
    """What all matching entries say of one model: of the same key, the most specific entry's value counts.

    The exact id is the most specific; of globs, the one with more characters that are no wildcards, then
    the later. Arguments of all matching entries follow one another, the least specific first, since the
    last of an argument wins; environments add up the same way.

    Args:
        models: by id or glob.
        model_id: the model's.
    """
    said: dict[str, Any] = {}
    for _, each in matching(models, model_id):
        given = {key: getattr(each, key) for key in each.model_fields_set}
        args = (*said.get("args", ()), *given.get("args", ()))
        env = {**said.get("env", {}), **given.get("env", {})}
        said |= {key: value for key, value in given.items() if value is not None}
        said |= {"args": args, "env": env}
    return ModelSettings.model_construct(**said)


def matching(models: Mapping[str, ModelSettings], model_id: str) -> list[tuple[str, ModelSettings]]:
    """The entries that apply to a model, with their patterns, the most specific last."""
    found = [
        (pattern, each)
        for pattern, each in models.items()
        if pattern == model_id or fnmatchcase(model_id, pattern)
    ]
    return sorted(found, key=lambda entry: (entry[0] == model_id, len(_WILDCARD.sub("", entry[0]))))
