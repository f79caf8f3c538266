"""What differs between two settings, and what of it a running server can take in. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from pydantic import BaseModel

from local_llm.model_settings import ModelSettings
from local_llm.settings import Settings

Key: TypeAlias = tuple[str, ...]

LIVE = frozenset({"aliases", "default_engine", "engines", "load", "models", "queue", "residency", "stop"})
"""What is looked up whenever it matters; all else is settled when the server starts."""

_SETTLED = frozenset(
    {
        ("load", "read_ahead"),
        ("load", "stream_feedback_after_seconds"),
        ("residency", "preload"),
        ("stop", "shutdown_grace_seconds"),
    }
)
"""The exceptions in those sections."""


def differences(before: Any, after: Any, path: Key = ()) -> Iterator[Key]:
    """The keys whose values differ, as deep as there are names: ``("models", "org/a", "args")``."""
    if isinstance(before, BaseModel) and isinstance(after, BaseModel):
        nulls = _nulls(before) ^ _nulls(after)
        for name in type(before).model_fields:
            found = list(differences(getattr(before, name), getattr(after, name), (*path, name)))
            yield from found or ([(*path, name)] if name in nulls else [])
    elif isinstance(before, dict) and isinstance(after, dict):
        if [key for key in before if key in after] != [key for key in after if key in before]:
            yield path  # of two globs that are as specific, the later wins
        for name in {**before, **after}:
            if name in before and name in after:
                yield from differences(before[name], after[name], (*path, name))
            else:
                yield (*path, name)
    elif before != after:
        yield path


def needs_restart(key: Key) -> bool:
    """Whether a server must be started anew for a changed key to have its effect."""
    return key[0] not in LIVE or key[:2] in _SETTLED


def with_settled(before: Settings, after: Settings) -> Settings:
    """`after`, but for what a running server cannot take in."""
    values: dict[str, Any] = {
        name: getattr(before, name) for name in Settings.model_fields if name not in LIVE
    }
    for section, key in sorted(_SETTLED):
        changed = values.get(section, getattr(after, section))
        values[section] = changed.model_copy(update={key: getattr(getattr(before, section), key)})
    return after.model_copy(update=values)


def _nulls(section: BaseModel) -> frozenset[str]:
    return section.nulls if isinstance(section, ModelSettings) else frozenset()
