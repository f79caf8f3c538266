"""Embedding models, through sentence-transformers: it knows their pooling, layers and normalisation."""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from local_llm_worker.pooling.inference import Inference, Loading

_LOOKS_LIKE_A_NAME = re.compile(r"[\w.-]+")

_log = logging.getLogger(__name__)


class EmbeddingModel(Inference):
    """A loaded `SentenceTransformer`.

    Attributes:
        size: dimensions of its vectors.
    """

    NOTHING = ""
    WHAT = "an embedding model: ask /v1/embeddings"

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model)
        self.size = int(model.get_embedding_dimension())
        if model.dtype != torch.float32:
            _pool_in_float32(model)

    @classmethod
    def load(cls, loading: Loading) -> EmbeddingModel:
        """Reads the folder's weights.

        Raises:
            ModelRefused: the model does not read text through a transformer.
        """
        return cls(SentenceTransformer(str(loading.path), **loading.arguments()))

    def set_default_prompt(self, prompt: str) -> None:
        """Puts a prompt before inputs that name none: one of the model's own by its name, or a text."""
        self.default_prompt = self.prompts.get(prompt, prompt)
        if prompt not in self.prompts and _LOOKS_LIKE_A_NAME.fullmatch(prompt):
            known = ", ".join(sorted(self.prompts)) or "none"
            _log.warning(
                "%r is no prompt of this model's (it has: %s), so it is put before inputs as a text",
                prompt,
                known,
            )

    def _read_out(self, features: dict[str, Any]) -> torch.Tensor:
        vectors: torch.Tensor = features["sentence_embedding"]
        return vectors[:, : self.size]  # the folder may set a `truncate_dim`, which is no module


def _pool_in_float32(model: SentenceTransformer) -> None:
    """Lets a model in half precision pool and normalise in float32, as vLLM does.

    In bfloat16 a "normalised" vector is up to half a percent longer or shorter than 1.
    """
    transformer, *rest = model.children()

    def widen(_module: Any, _arguments: Any, features: dict[str, Any]) -> dict[str, Any]:
        output = features[transformer.module_output_name]
        return {**features, transformer.module_output_name: output.float()}

    transformer.register_forward_hook(widen)
    for module in rest:
        module.float()
