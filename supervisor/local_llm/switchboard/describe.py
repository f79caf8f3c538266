"""From the catalogue's and the settings' language to the policy's."""

from __future__ import annotations

from fnmatch import fnmatchcase

from local_llm.catalog.card import Engine, ModelCard
from local_llm.settings import Settings
from local_llm.switchboard.events import Model
from local_llm.switchboard.policy import Limits

IMPORT_SECONDS = {Engine.VLLM: 30.0, Engine.TRANSFORMERS: 10.0, Engine.COMMAND: 5.0}
"""What an engine needs before it reads the first weight, measured on two cores (house.md)."""

READ_BYTES_PER_SECOND = 1 << 30

BYTES_PER_WEIGHT_BYTE = 1.2
"""Weights, and the activations that come with them."""

OVERHEAD_BYTES = 1 << 30
"""Of every worker: the CUDA context, the engine's buffers, a small KV cache."""


def limits(settings: Settings) -> Limits:
    """The policy's limits from the settings. The default model comes later: it must be found first."""
    return Limits(
        max_models=settings.residency.max_models,
        capacity_bytes=settings.residency.memory_bytes,
        patience=settings.queue.patience,
        drain_max_seconds=settings.queue.drain_max_seconds,
        max_waiting=settings.queue.max_waiting,
        max_waiting_total=settings.queue.max_waiting_total,
        max_wait_seconds=settings.queue.max_wait_seconds,
        idle_unload_seconds=settings.residency.idle_unload_seconds,
        default_model_after_seconds=settings.residency.default_model_after_seconds,
    )


def describe(card: ModelCard, settings: Settings) -> Model:
    """What the policy must know of a card."""
    kept = any(
        pattern == card.kind.value or fnmatchcase(card.id, pattern) for pattern in settings.residency.keep
    )
    return Model(
        # A worker answers to the names it was started with: a further alias makes it another one too.
        key=f"{'|'.join(card.served_names)}@{card.fingerprint}",
        label=card.id,
        first_guess_seconds=IMPORT_SECONDS[card.engine] + card.size_bytes / READ_BYTES_PER_SECOND,
        need_bytes=need_bytes(card, settings),
        max_concurrent=settings.engine_settings(card.engine).max_concurrent,
        kept=kept,
    )


def need_bytes(card: ModelCard, settings: Settings) -> int:
    """What a model takes of `residency.memory_bytes`: as set for it, else estimated from its weights."""
    stated = settings.model_settings(card.id).memory_bytes
    return int(card.size_bytes * BYTES_PER_WEIGHT_BYTE) + OVERHEAD_BYTES if stated is None else stated
