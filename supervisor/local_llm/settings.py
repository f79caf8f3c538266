"""One typed tree of settings: defaults, then a YAML file, then the environment, then flags.

Only this module reads configuration files and `LOCAL_LLM_…` variables. The loading and the error
messages live in `settings_sources.py`; `config/local-llm.yaml` shows every key and a test keeps it true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from local_llm.catalog.card import Engine
from local_llm.model_settings import ModelSettings, merged
from local_llm.settings_types import AutoOnOff, Bytes, Count, OnLocalOff, Seconds, Section


class AnyEngineSettings(Section):
    """What is common to every engine."""

    args: tuple[str, ...] = Field((), description="Further arguments for every worker of this engine.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Further environment for every worker of this engine."
    )
    max_concurrent: Count = Field(
        256, description="Requests sent to one worker at a time; more wait for their turn."
    )


class EngineSettings(AnyEngineSettings):
    """What is common to the engines written in Python."""

    python: Path | None = Field(
        None, description="The Python that has the engine installed; none means the supervisor's own."
    )
    warm: AutoOnOff = Field(
        "auto",
        description="Start workers from a process that has imported the engine already (0.7 GB of host "
        "memory for vLLM, 0.5 GB for transformers); auto: where that is free, and 4 GB beside it.",
    )


class CommandSettings(AnyEngineSettings):
    """Servers that the settings of single models give the command of."""


class VllmSettings(EngineSettings):
    """vLLM: chat and completions."""

    gpu_memory_reserve_bytes: Bytes = Field(
        1 << 30,
        description="GPU memory left to others when --gpu-memory-utilization is computed from what is free.",
    )
    start: Literal["balanced", "fast", "full"] = Field(
        "balanced",
        description="On a GPU. balanced: compiled, with graphs for batches of up to 64; full: vLLM's own "
        "choice, slower to start; fast: neither compiled nor with graphs, first answer soonest.",
    )
    cpu_kv_cache_gib: Count = Field(1, description="VLLM_CPU_KVCACHE_SPACE where there is no GPU, in GiB.")


class TransformersSettings(EngineSettings):
    """The transformers worker: embeddings, reranking, scoring."""

    token_ids: Literal["openai", "model"] = Field(
        "openai",
        description="What token arrays in /v1/embeddings are: OpenAI's cl100k_base (as LangChain sends) or "
        "the model's own ids.",
    )
    max_batch_tokens: Count = Field(
        16384, description="Tokens, padding included, that are computed in one batch at most."
    )


class EnginesSettings(Section):
    """Per engine."""

    vllm: VllmSettings = VllmSettings()
    transformers: TransformersSettings = TransformersSettings()
    command: CommandSettings = CommandSettings()


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
