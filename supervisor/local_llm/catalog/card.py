"""What the catalogue knows of one model folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Kind(str, Enum):
    """What a model is for; decides which endpoints it answers."""

    CHAT = "chat"
    BASE = "base"  # completions only: a language model without a chat template
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"


class Engine(str, Enum):
    """The program that runs a model."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that can be served.

    Attributes:
        id: the name clients use, ``name`` or ``org/name``.
        path: the folder that holds config.json (in the Hugging Face cache layout: the snapshot).
        kind: what it is for.
        engine: what runs it.
        evidence: why kind and engine were decided so, one finding each, for people.
        aliases: further names it answers to, without the id. The short last part of an
            ``org/name`` id is among them while it is unambiguous.
        size_bytes: of the weight files.
        context_length: tokens, from config.json; None if it does not say.
        architecture: ``architectures[0]`` of config.json; None if it does not say.
        created: modification time of config.json, seconds since the epoch.
        fingerprint: changes when any file that matters to a worker changes.
    """

    id: str
    path: Path
    kind: Kind
    engine: Engine
    evidence: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    size_bytes: int = 0
    context_length: int | None = None
    architecture: str | None = None
    created: int = 0
    fingerprint: str = field(default="", repr=False)

    @property
    def served_names(self) -> tuple[str, ...]:
        """Every name the worker must answer to; the id first.

        The short name is always among them: it becomes an alias of a worker that runs already when the
        folder that made it ambiguous goes.
        """
        short = self.id.rpartition("/")[2]
        return tuple(dict.fromkeys((self.id, *self.aliases, short)))


@dataclass(frozen=True, slots=True)
class BrokenModel:
    """A folder that looks like a model and cannot be served, and why, for people."""

    id: str
    path: Path
    reason: str
