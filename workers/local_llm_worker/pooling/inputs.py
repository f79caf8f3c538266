"""What is submitted to a model, and what becomes of it before it is computed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Pair: TypeAlias = tuple[str, str]
"""A query and a document, or two texts for a classifier."""
Input: TypeAlias = "str | Pair | list[int]"
"""A text, a pair for a reranker or a classifier, or the model's own token ids."""


@dataclass(frozen=True, slots=True)
class TokenizeOptions:
    """How inputs become tokens. Requests of equal options are tokenised in one call.

    Attributes:
        prompt: put before each text; for a generative reranker, the instruction.
        max_length: inputs are cut to so many tokens; none are cut if None.
        max_query_tokens: of a pair, the query is cut to so many tokens before the document is added.
        max_document_tokens: the same for the document.
        special_tokens: whether the tokens that begin and end an input are added; for `tokenize_plainly`.
        own_ids: the inputs are token ids of the model's own vocabulary, taken as they are.
    """

    prompt: str | None = None
    max_length: int | None = None
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    special_tokens: bool = True
    own_ids: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One input, tokenised, without padding.

    Attributes:
        features: per token, as the tokenizer names them: ``input_ids``, ``attention_mask``, ...
        shared: features of a whole batch (the prompt's length, the modality). Only items in which they
            are equal are computed together.
    """

    features: Mapping[str, list[int]]
    shared: tuple[tuple[str, Hashable], ...] = ()

    def __len__(self) -> int:
        return len(self.features["input_ids"])
