"""Settings of models that do nothing: told, lest somebody waits for what they should do. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from local_llm.catalog.card import WRITES_TEXT, Engine, Kind, ModelCard
from local_llm.model_settings import ModelSettings, is_glob, matches, origins

_FOR_COMMANDS = frozenset({"command", "path", "ready_path", "stop_signal"})
_NOT_FOR_COMMANDS = frozenset({"python", "dtype", "trust_remote_code"})


def without_effect_on(card: ModelCard, models: Mapping[str, ModelSettings]) -> list[str]:
    """What the settings say of one model in vain, a line each, for people.

    Args:
        card: the model's.
        models: by id or glob.
    """
    found = [(origin, why_idle(origin.key, origin.value, card)) for origin in origins(models, card.id)]
    return [f"models.{origin.pattern}.{origin.key} has no effect: {why}" for origin, why in found if why]


def without_effect(
    models: Mapping[str, ModelSettings], cards: Sequence[ModelCard], others: Collection[str] = ()
) -> list[str]:
    """Entries that match nothing, and keys of entries that mean nothing to any model they match.

    Args:
        models: by id or glob.
        cards: all models that can be served.
        others: ids of those that cannot.
    """
    found: list[str] = []
    for pattern, each in models.items():
        matched = [card for card in cards if matches(pattern, card.id)]
        if not matched and not any(matches(pattern, other) for other in others):
            found.append(_nothing_matches(pattern, [*(card.id for card in cards), *others]))
        for key in each.model_fields_set if matched else ():
            reasons = [why_idle(key, getattr(each, key), card) for card in matched]
            if None not in reasons:
                found.append(f"models.{pattern}.{key} has no effect: {reasons[0]}")
    return found


def why_idle(key: str, value: Any, card: ModelCard) -> str | None:
    """Why a key of a model's settings does nothing; None if it does something.

    Args:
        key: of `ModelSettings`.
        value: its value.
        card: the model's.
    """
    engine = card.engine.value
    runs_on = f"{card.id} runs on {engine}"
    if key == "start" and card.engine is not Engine.VLLM:
        return f"it is vLLM's, and {runs_on}"
    if key == "prompt" and (card.kind, card.engine) != (Kind.EMBEDDING, Engine.TRANSFORMERS):
        return (
            f"it is for embedding models on transformers; {card.id} is a {card.kind.value} model, on {engine}"
        )
    if key == "gpus" and isinstance(value, int) and value > 1 and card.engine is not Engine.VLLM:
        return f"only vLLM spreads a model over GPUs, and {runs_on}"
    if key == "context" and not takes_context(card.engine, card.kind):
        return f"its server is not told of a limit, and {runs_on}"
    if key in _FOR_COMMANDS and card.engine is not Engine.COMMAND:
        return f"it belongs to engine: command, and {runs_on}"
    if key in _NOT_FOR_COMMANDS and card.engine is Engine.COMMAND:
        return f"a command says that itself, and {runs_on}"
    return None


def takes_context(engine: Engine, kind: Kind) -> bool:
    """Whether `context` limits what a model takes: a command says it itself, transformers' server cannot."""
    return engine is Engine.VLLM or (engine is Engine.TRANSFORMERS and kind not in WRITES_TEXT)


def _nothing_matches(pattern: str, ids: Sequence[str]) -> str:
    if is_glob(pattern):
        return f"models.{pattern} has no effect: no model's id matches it"
    by_last_part = [each for each in ids if each.rpartition("/")[2].lower() == pattern.lower()]
    near = by_last_part or difflib.get_close_matches(pattern, ids, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"models.{pattern} has no effect: there is no model of that id{hint}"
