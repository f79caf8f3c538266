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
_ACTIVATION_KEYS = ("sentence_transformers", "sbert_ce_default_activation_function")


class Kind(str, Enum):
    """What this program can do with a model."""

    EMBEDDING = "embedding"
    RERANKER = "reranker"


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
    def label_count(self) -> int:
        """How many classes a sequence classifier tells apart; transformers' default is 2."""
        id2label = self.config.get("id2label")
        return len(id2label) if id2label else int(self.config.get("num_labels") or 2)

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
            ModelRefused: it is a classifier, a chat model, or of no kind that is known.
        """
        if self.sentence_transformers.get("model_type") == "CrossEncoder" or self.has_module("LogitScore"):
            return Kind.RERANKER
        if self.has_module("Pooling"):
            return Kind.EMBEDDING
        if self.architecture.endswith("ForSequenceClassification"):
            return self._kind_of_classifier()
        if self.architecture.endswith(_ENCODER_SUFFIXES):
            return Kind.EMBEDDING
        if self.is_generative and "rerank" in self.path.name.lower():
            return Kind.RERANKER
        raise ModelRefused(
            f"{self.path} ({self.architecture or 'no architecture'}) shows no sign of an embedding model "
            "or a reranker. If it is one nevertheless, say which with --kind."
        )

    def _kind_of_classifier(self) -> Kind:
        if self.label_count == 1 or any(self.config.get(key) for key in _ACTIVATION_KEYS):
            return Kind.RERANKER
        raise ModelRefused(f"{self.path} is a classifier of {self.label_count} labels, not a reranker.")


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
