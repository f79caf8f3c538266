"""What a vLLM worker is told because of sounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from local_llm.catalog import architectures
from local_llm.catalog.card import Kind, ModelCard
from local_llm.settings import Settings

_LIMIT = "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB"


def audio_args(card: ModelCard) -> list[str]:
    """For models that transcribe: who has no library to read sounds with shall say so."""
    transcribes = card.kind is Kind.TRANSCRIPTION or card.architecture in architectures.TRANSCRIBE_TOO
    return ["--middleware", "local_llm_worker.audio_guard.AudioGuard"] if transcribes else []


def audio_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """vLLM's own limit of an upload (25 MiB) follows ours, unless the environment has another."""
    ours = str(math.ceil(settings.max_upload_bytes / (1 << 20)))
    return {_LIMIT: environment.get(_LIMIT, ours)}
