"""What a model folder says of its kind, before anything heavy is imported.

The supervisor decides by the same rules which engine to start; both read the folder, neither imports
the other.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from local_llm_worker.pooling.errors import ModelRefused

_ENCODER_SUFFIXES = ("Model", "ForTextEncoding", "EmbeddingModel")


class Kind(str, Enum):
    """What this program can do with a model."""

    EMBEDDING = "embedding"
    RERANKER = "reranker"
    CLASSIFIER = "classifier"


class Folder:
    """The small JSON files of a model folder.

    Args:
        path: holds config.json.

    Raises:
        ModelRefused: a file is no JSON object, or there is no config.json.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _read_object(path / "config.json")
        if not self.config:
            raise ModelRefused(f"{path} has no config.json.")
        self.sentence_transformers = _read_object(path / "config_sentence_transformers.json")
        modules = _read_json(path / "modules.json") or []
        self.module_types = tuple(str(each.get("type", "")) for each in modules if isinstance(each, dict))

    @property
    def architecture(self) -> str:
        """The model's class, or the empty string."""
        architectures = self.config.get("architectures")
        return str(architectures[0]) if architectures else ""

    @property
    def model_type(self) -> str:
        """The model's family, as ``qwen3``."""
        return str(self.config.get("model_type", ""))

    @property
    def label_count(self) -> int | None:
        """How many classes the model tells apart, if config.json says so."""
        count = len(self.config.get("id2label") or ()) or self.config.get("num_labels")
        return int(count) if count else None

    @property
    def has_class_head(self) -> bool:
        """Whether the model's head is a sequence classifier's."""
        return self.architecture.endswith("ForSequenceClassification")

    @property
    def is_generative(self) -> bool:
        """Whether the model's head is a language model's."""
        return self.architecture.endswith("ForCausalLM")

    def has_module(self, name: str) -> bool:
        """Whether modules.json lists a module of that class name, from wherever it is imported."""
        return any(each.rsplit(".", 1)[-1] == name for each in self.module_types)

    def kind(self) -> Kind:
        """Decides by content, then, for old copies that say nothing, by name.

        Raises:
            ModelRefused: it is a chat model, or of no kind that is known.
        """
        if self.has_module("LogitScore"):
            return Kind.RERANKER
        if self.sentence_transformers.get("model_type") == "CrossEncoder":
            return self._kind_of_labels(unsaid=2 if self.has_class_head else 1)
        if self.has_module("Pooling"):
            return Kind.EMBEDDING
        if self.has_class_head:
            return self._kind_of_labels(unsaid=2)
        if self.architecture.endswith(_ENCODER_SUFFIXES):
            return Kind.EMBEDDING
        if self.is_generative and "rerank" in self.path.name.lower():
            return Kind.RERANKER
        raise ModelRefused(
            f"{self.path} ({self.architecture or 'no architecture'}) shows no sign of an embedding model, "
            "a reranker or a classifier. If it is one nevertheless, say which with --kind."
        )

    def _kind_of_labels(self, *, unsaid: int) -> Kind:
        """One label ranks, more classify; transformers leaves its default of two unsaid."""
        return Kind.RERANKER if (self.label_count or unsaid) == 1 else Kind.CLASSIFIER


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    content = _read_json(path) or {}
    if not isinstance(content, dict):
        raise ModelRefused(f"{path} holds no JSON object.")
    return content
