"""What can be set for each engine: the program that runs models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from local_llm.settings_types import AutoOnOff, Bytes, Count, Section


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
