"""One typed tree of settings: defaults, then a YAML file, then the environment, then flags.

Only this module reads configuration files and `LOCAL_LLM_…` variables. The loading and the error
messages live in `settings_sources.py`; `config/local-llm.yaml` shows every key and a test keeps it true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from local_llm import placeholders
from local_llm.catalog.card import Engine
from local_llm.catalog.families import Families, with_file
from local_llm.catalog.families_file import FamiliesError
from local_llm.engine_settings import AnyEngineSettings, EnginesSettings
from local_llm.model_settings import ModelSettings, is_glob, merged
from local_llm.settings_types import Bytes, Count, OnLocalOff, Seconds, Section, misplaced


class QueueSettings(Section):
    """Who waits, how long, and how many."""

    patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1.0,
        description="A waiter for another model is preferred to newcomers once it has waited this many "
        "times the measured cost of a switch.",
    )
    drain_max_seconds: Seconds = Field(
        600, description="What still runs on a worker that must go is cut with an error after this long."
    )
    max_waiting: Count = Field(256, description="Requests that may wait for one model; beyond it: 429.")
    max_waiting_total: Count = Field(1024, description="Requests that may wait in all; beyond it: 429.")
    max_wait_seconds: Seconds = Field(600, description="A request that waited this long is given up: 503.")


class ResidencySettings(Section):
    """Which models may be loaded at the same time."""

    max_models: Count = Field(1, description="Models loaded at the same time, at most.")
    memory_bytes: Bytes | None = Field(
        None, description="Of the device, for all loaded models together; none: only their number counts."
    )
    keep: tuple[str, ...] = Field(
        (), description="Ids, globs or kinds that are not stopped for others. One place must stay free."
    )
    preload: tuple[str, ...] = Field(
        (), description="Models to load when the server starts, one after the other."
    )
    idle_unload_seconds: Seconds | None = Field(
        None, description="A model nobody asked for so long is unloaded, unless kept; none: never."
    )
    default_model: str | None = Field(
        None, description="Loaded at the start, and again once nobody has asked for others for a while."
    )
    default_model_after_seconds: Seconds = Field(
        300, description="How long others must be idle before the default model takes their place."
    )

    @model_validator(mode="after")
    def _one_place_stays_free(self) -> ResidencySettings:
        if self.keep and len(self.keep) >= self.max_models:
            raise ValueError(
                f"keeps {len(self.keep)} for good within max_models={self.max_models}: "
                "one place must stay free, so raise max_models or keep fewer"
            )
        return self

    @model_validator(mode="after")
    def _all_preloaded_have_a_place(self) -> ResidencySettings:
        if len(self.preload) > self.max_models:
            raise ValueError(
                f"preloads {len(self.preload)} within max_models={self.max_models}: the later ones would "
                "push the earlier ones out, so raise max_models or preload fewer"
            )
        return self


class LoadSettings(Section):
    """How long a worker may take to become ready."""

    stall_seconds: Seconds = Field(300, description="A load without progress for this long is given up.")
    max_seconds: Seconds = Field(1800, description="A load that takes this long is given up anyway.")
    stream_feedback_after_seconds: Seconds = Field(
        10,
        description="A streaming client that waits this long is told what for, in SSE comments; 0: never.",
    )
    read_ahead: OnLocalOff = Field(
        "on",
        description="Read the next model's files into the page cache while the present one still works; "
        "local: not from network file systems.",
    )


class StopSettings(Section):
    """How workers, and the server, end."""

    grace_seconds: Seconds = Field(10, description="Between a worker's SIGTERM and its SIGKILL.")
    unresponsive_seconds: Seconds = Field(
        60, description="A ready worker that answers no probe for this long is killed; 0: never."
    )
    memory_back_seconds: Seconds = Field(
        30, description="How long to wait for an ended worker's GPU memory to be free again."
    )
    shutdown_grace_seconds: Seconds = Field(
        30, description="How long running requests may go on after SIGTERM or Ctrl-C."
    )


class Settings(Section):
    """Everything that can be set."""

    models_dir: Path = Field(Path("models"), description="The folder that holds the models.")
    # An empty host would mean all interfaces: `--host "$UNSET"` must not open the server.
    host: Annotated[str, Field(min_length=1)] = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 for all."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000, description="Port to listen on; 0 takes a free one."
    )
    api_keys: tuple[str, ...] = Field((), description="If any: every path but GET /health wants one.")
    api_keys_file: Path | None = Field(
        None, description="A file with one key a line, for Docker and Kubernetes secrets."
    )
    max_body_bytes: Bytes = Field(32 << 20, description="The largest request body; beyond it: 413.")
    max_waiting_body_bytes: Bytes = Field(
        256 << 20, description="All bodies of waiting requests together; beyond it: 429."
    )
    max_upload_bytes: Bytes = Field(
        512 << 20, description="The largest upload of a file to be transcribed; beyond it: 413."
    )
    max_waiting_upload_bytes: Bytes = Field(
        4 << 30, description="All uploads together, which wait in files under TMPDIR; beyond it: 429."
    )
    default_engine: Engine = Field(
        Engine.VLLM, description="For folders whose content and name say nothing of their kind."
    )
    aliases: dict[str, str] = Field(default_factory=dict, description="Further names: alias -> model id.")
    admin: bool = Field(
        True, description="Answer /admin: with a key where there are keys, else for local clients only."
    )
    state_dir: Path | None = Field(
        None,
        description="Where measured switch costs are kept; none: $XDG_STATE_HOME/local-llm, or "
        "~/.local/state/local-llm.",
    )
    families: Path | None = Field(
        None,
        description="A file of model families, YAML or JSON, that are tried before the built-in ones: how "
        "vLLM is to read their tool calls and their reasoning. It is read at the start.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Where engines keep what they have compiled; none: $XDG_CACHE_HOME/local-llm, or "
        "~/.cache/local-llm.",
    )
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human at a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    engines: EnginesSettings = EnginesSettings()
    models: dict[str, ModelSettings] = Field(
        default_factory=dict,
        description="Per model, by id or glob; of those that match, the most specific wins.",
    )
    queue: QueueSettings = QueueSettings()
    residency: ResidencySettings = ResidencySettings()
    load: LoadSettings = LoadSettings()
    stop: StopSettings = StopSettings()

    @field_validator("default_engine")
    @classmethod
    def _default_engine_runs_folders(cls, engine: Engine) -> Engine:
        if engine is Engine.COMMAND:
            raise ValueError("should be 'vllm' or 'transformers': a command belongs to single models")
        return engine

    @field_validator("api_keys", mode="before")
    @classmethod
    def _one_key_is_a_list(cls, value: Any) -> Any:
        """`LOCAL_LLM_API_KEYS=secret` is what one writes in an environment. YAML makes 83 of the key 0123."""
        keys = (value,) if isinstance(value, str | int | float) else value
        if isinstance(keys, list | tuple) and not all(isinstance(key, str) for key in keys):
            raise ValueError("a key that looks like a number must be quoted")
        return keys

    @field_validator("api_keys")
    @classmethod
    def _keys_are_usable(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if any(not key.strip() for key in keys):
            raise ValueError("a key must not be empty")
        return tuple(key.strip() for key in keys)  # no header brings blanks around it

    @model_validator(mode="after")
    def _families_can_be_read(self) -> Settings:
        try:
            _ = self.families and self.known_families
        except FamiliesError as error:
            raise misplaced(str(error), "families") from None
        return self

    @field_validator("models", mode="before")
    @classmethod
    def _models_are_by_id(cls, value: Any) -> Any:
        if isinstance(value, list | str):
            raise ValueError(  # noqa: TRY004 - what pydantic makes an error with a place of
                'should be a mapping of ids or globs to settings: {"Qwen/*": {context: 8192}}'
            )
        return value

    @model_validator(mode="after")
    def _one_place_stays_free(self) -> Settings:
        kept = [pattern for pattern, each in self.models.items() if each.keep]
        in_all = {*self.residency.keep, *kept}
        if kept and len(in_all) >= self.residency.max_models:
            raise misplaced(
                f"with it {len(in_all)} are kept for good within "
                f"residency.max_models={self.residency.max_models}: one place must stay free, so raise "
                "max_models or keep fewer",
                *("models", kept[-1], "keep"),
            )
        return self

    @model_validator(mode="after")
    def _an_alias_is_of_one_model(self) -> Settings:
        said = dict(self.aliases)
        for pattern, each in self.models.items():
            if each.aliases and is_glob(pattern):
                raise misplaced(
                    "a glob may match more than one model, and an alias is of one: give it under the "
                    "exact id",
                    *("models", pattern, "aliases"),
                )
            for index, alias in enumerate(each.aliases):
                if said.setdefault(alias, pattern) != pattern:
                    raise misplaced(
                        f"{alias!r} is an alias of {said[alias]!r} already",
                        *("models", pattern, "aliases", str(index)),
                    )
        return self

    @property
    def known_families(self) -> Families:
        """The built-in model families, after those of the user's file, which is read once."""
        return with_file(self.families)

    @model_validator(mode="after")
    def _commands_are_complete(self) -> Settings:
        for pattern, each in self.models.items():
            said = merged(self.models, pattern)
            if said.engine is Engine.COMMAND and not said.command:
                raise misplaced(
                    'there is no command: ["llama-server", "-m", "{path}", "--port", "{port}"], say',
                    *("models", pattern, "engine"),
                )
            if said.command and said.engine is not Engine.COMMAND:
                raise misplaced("it is of no effect without engine: command", "models", pattern, "command")
            words = (*said.command, *said.args, *self.engines.command.args)
            if said.command and each.command and not placeholders.names(words, "port"):
                raise misplaced(
                    "it must name {port}, for the server is asked where it was told to listen",
                    *("models", pattern, "command"),
                )
        return self

    @property
    def all_aliases(self) -> dict[str, str]:
        """Every further name, those of `models` too: alias -> model id."""
        given = {alias: pattern for pattern, each in self.models.items() for alias in each.aliases}
        return {**self.aliases, **given}

    def engine_settings(self, engine: Engine) -> AnyEngineSettings:
        """The settings of `engine`."""
        match engine:
            case Engine.VLLM:
                return self.engines.vllm
            case Engine.TRANSFORMERS:
                return self.engines.transformers
            case Engine.COMMAND:
                return self.engines.command

    def model_settings(self, model_id: str) -> ModelSettings:
        """What the settings say of one model; see `model_settings.merged`."""
        return merged(self.models, model_id)
