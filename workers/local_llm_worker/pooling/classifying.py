"""Classifiers, through sentence-transformers' `CrossEncoder`, which reads texts as well as pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import nn

from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.inference import Inference, Loading
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions


class Classifier(Inference):
    """A loaded classifier. Its rows have each label's raw number, and then each label's probability.

    Attributes:
        labels: their names, in the order of the columns.
    """

    NOTHING = ""
    WHAT = "a classifier: ask /v1/classify"

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__(model)
        count = int(model.num_labels)
        names: Mapping[int, str] = getattr(model.config, "id2label", None) or {}
        self.labels = tuple(names.get(number) for number in range(count))
        self._activation = _activation(model, count)

    @classmethod
    def load(cls, loading: Loading) -> Classifier:
        """Reads the folder's weights."""
        return cls(CrossEncoder(str(loading.path), **loading.arguments()))

    def set_default_prompt(self, prompt: str) -> None:
        """Not for this kind of model.

        Raises:
            ModelRefused: always.
        """
        raise ModelRefused(f"A prompt ({prompt!r}) is for embedding models; this is a classifier.")

    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]:
        """See `Tokenization.tokenize_plainly`: a conversation comes here as the text it was made into."""
        return self._tokenization.tokenize_plainly(inputs, options)

    def conversation(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
        """The text that the model's chat template makes of a conversation.

        Args:
            messages: with a role and a text each.
            arguments: for the template.

        Raises:
            BadRequest: the model has no template, or its template does not take these messages.
        """
        return self._tokenization.conversation(messages, arguments)

    def _read_out(self, features: dict[str, Any]) -> torch.Tensor:
        raw = features["scores"].float().reshape(-1, len(self.labels))
        return torch.cat([raw, self._activation(raw)], dim=1)


def _activation(model: CrossEncoder, label_count: int) -> Any:
    """What makes probabilities of the model's numbers.

    `problem_type` decides, as in transformers' own pipeline and in vLLM; else what the folder names, if it
    names one that does anything; else the labels exclude one another.
    """
    problem_type = getattr(model.config, "problem_type", None)
    if problem_type == "regression":
        return nn.Identity()
    if problem_type == "multi_label_classification":
        return nn.Sigmoid()
    if problem_type is None and not isinstance(model.activation_fn, nn.Identity):
        return model.activation_fn
    return nn.Softmax(dim=-1) if label_count > 1 else nn.Sigmoid()
