"""From the catalogue's and the settings' language to the policy's."""

from __future__ import annotations

from fnmatch import fnmatchcase

from local_llm.catalog.card import Engine, ModelCard
from local_llm.settings import Settings
from local_llm.switchboard.events import Model
from local_llm.switchboard.policy import Limits

IMPORT_SECONDS = {Engine.VLLM: 30.0, Engine.TRANSFORMERS: 10.0}
"""What an engine needs before it reads the first weight, measured on two cores (house.md)."""

READ_BYTES_PER_SECOND = 1 << 30


def limits(settings: Settings) -> Limits:
    """The policy's limits from the settings."""
    return Limits(
        max_models=settings.residency.max_models,
        patience=settings.queue.patience,
        drain_max_seconds=settings.queue.drain_max_seconds,
        max_waiting=settings.queue.max_waiting,
        max_waiting_total=settings.queue.max_waiting_total,
        max_wait_seconds=settings.queue.max_wait_seconds,
    )


def describe(card: ModelCard, settings: Settings) -> Model:
    """What the policy must know of a card."""
    kept = any(
        pattern == card.kind.value or fnmatchcase(card.id, pattern) for pattern in settings.residency.keep
    )
    return Model(
        key=f"{card.id}@{card.fingerprint}",
        label=card.id,
        first_guess_seconds=IMPORT_SECONDS[card.engine] + card.size_bytes / READ_BYTES_PER_SECOND,
        max_concurrent=settings.engine_settings(card.engine).max_concurrent,
        kept=kept,
    )
