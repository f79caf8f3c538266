"""From the catalogue's and the settings' language to the policy's."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase

from local_llm.catalog.card import Engine, ModelCard
from local_llm.footprint.footprint import footprint_of
from local_llm.settings import Settings
from local_llm.switchboard.events import Model
from local_llm.switchboard.policy import Limits

IMPORT_SECONDS = {Engine.VLLM: 30.0, Engine.TRANSFORMERS: 10.0, Engine.COMMAND: 5.0}
"""What an engine needs before it reads the first weight, measured on two cores (house.md)."""

READ_BYTES_PER_SECOND = 1 << 30

NOT_OF_A_WORKER = frozenset(
    {"aliases", "fit", "idle_unload_seconds", "keep", "max_concurrent", "memory_bytes", "warm"}
)
"""Settings of engines and models that are the supervisor's own business: they change while a worker runs.
(Aliases are a worker's: they are among its names.)"""

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
    said = settings.model_settings(card.id)
    kept = said.keep
    if kept is None:
        kept = any(
            pattern == card.kind.value or fnmatchcase(card.id, pattern) for pattern in settings.residency.keep
        )
    return Model(
        # A worker answers to the names it was started with: a further alias makes it another one too.
        key=f"{_names_and_files(card)}@{worker_digest(card, settings)}",
        label=card.id,
        first_guess_seconds=IMPORT_SECONDS[card.engine] + card.size_bytes / READ_BYTES_PER_SECOND,
        need_bytes=need_bytes(card, settings),
        max_concurrent=settings.engine_settings(card.engine).max_concurrent,
        kept=kept,
        idle_unload_seconds=said.idle_unload_seconds,
    )


def _names_and_files(card: ModelCard) -> str:
    """Of a model and of the adapters that its worker serves."""
    adapters = (f"+{'|'.join(each.names)}@{each.fingerprint}" for each in card.adapters)
    return f"{'|'.join(card.served_names)}@{card.fingerprint}{''.join(adapters)}"


def worker_digest(card: ModelCard, settings: Settings) -> str:
    """Of all that the settings say of how a worker of `card` is started, and of nothing else.

    It is part of a model's key: where it changes, the worker that runs makes way for another.
    """
    engine = settings.engine_settings(card.engine).model_dump(mode="json", exclude=set(NOT_OF_A_WORKER))
    model = settings.model_settings(card.id).model_dump(mode="json", exclude=set(NOT_OF_A_WORKER))
    said = json.dumps([card.engine.value, card.kind.value, engine, model], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def need_bytes(card: ModelCard, settings: Settings) -> int:
    """What a model takes of `residency.memory_bytes`: as set for it, else what is known of its weights.

    Their files are only looked into where that limit is set: nothing else depends on it.
    """
    stated = settings.model_settings(card.id).memory_bytes
    if stated is not None:
        return stated
    if settings.residency.memory_bytes is not None:
        # What computes is not known here: transformers' servers need most on the CPU.
        weights = footprint_of(card, settings, on_gpu=card.engine is Engine.VLLM).weights
        if weights.exact:
            return int(weights.loaded_bytes * BYTES_PER_WEIGHT_BYTE) + OVERHEAD_BYTES
    return int(card.size_bytes * BYTES_PER_WEIGHT_BYTE) + OVERHEAD_BYTES
