"""What the catalogue knows of one model folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Kind(str, Enum):
    """What a model is for; decides which endpoints it answers."""

    CHAT = "chat"
    VISION_LANGUAGE = "vision-language"  # chats about images too
    BASE = "base"  # completions only: a language model without a chat template
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"
    TRANSCRIPTION = "transcription"


CHATS = frozenset({Kind.CHAT, Kind.VISION_LANGUAGE})
WRITES_TEXT = CHATS | {Kind.BASE}


class Engine(str, Enum):
    """The program that runs a model."""

    VLLM = "vllm"
    TRANSFORMERS = "transformers"
    COMMAND = "command"  # what the settings say


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of how vLLM runs a model's family; from `families.json`.

    Attributes:
        name: of the family, for people.
        tool_call_parser: vLLM's name of it; None where no tool format is certain.
        reasoning_parser: the same.
        args: further arguments for vLLM.
        evidence: how it was recognised.
    """

    name: str
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    args: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter, served by the worker of its base model.

    Attributes:
        names: what it answers to, its id first.
        path: of the folder that holds adapter_config.json.
        rank: of its matrices; vLLM must know the largest.
        fingerprint: changes when any file of it changes.
    """

    names: tuple[str, ...]
    path: Path
    rank: int
    fingerprint: str = field(default="", repr=False)


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
        weights: names of the weight files in `path`.
        family: what is known of how vLLM runs it; None if nothing is certain.
        adapters: LoRA adapters that its worker serves beside it.
        base: of an adapter's card, the model whose worker serves it.
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
    weights: tuple[str, ...] = field(default=(), repr=False)
    family: Family | None = None
    adapters: tuple[Adapter, ...] = ()
    base: ModelCard | None = field(default=None, repr=False)

    @property
    def runs_as(self) -> ModelCard:
        """The card that a worker is started for: the base of an adapter, else this one."""
        return self.base or self

    @property
    def served_names(self) -> tuple[str, ...]:
        """Every name the worker must answer to; the id first.

        The short name is always among them: it becomes an alias of a worker that runs already when the
        folder that made it ambiguous goes. Unless one of its adapters is called so.
        """
        short = self.id.rpartition("/")[2]
        taken = {name for adapter in self.adapters for name in adapter.names}
        return tuple(name for name in dict.fromkeys((self.id, *self.aliases, short)) if name not in taken)


@dataclass(frozen=True, slots=True)
class BrokenModel:
    """A folder that looks like a model and cannot be served, and why, for people."""

    id: str
    path: Path
    reason: str
