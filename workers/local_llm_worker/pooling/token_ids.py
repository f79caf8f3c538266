"""Token arrays in `/v1/embeddings`: whose ids they are, and how they become text.

Clients such as LangChain's `OpenAIEmbeddings` count and cut texts with OpenAI's tokenizer and send the
ids, whatever model they ask for. Taken as the model's own they would be noise that looks like a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any

from local_llm_worker.pooling.errors import InputRejected


class TokenIds(str, Enum):
    """Whose token ids clients send."""

    OPENAI = "openai"
    MODEL = "model"


@cache
def _cl100k_base() -> Any:
    import bpe_openai

    return bpe_openai.get_encoding("cl100k_base")


def decode_openai_ids(arrays: Sequence[Sequence[int]]) -> list[str]:
    """The texts of arrays of `cl100k_base` ids; half a character at an end becomes U+FFFD.

    Raises:
        InputRejected: an id that the vocabulary does not have.
    """
    encoding = _cl100k_base()
    texts = []
    for index, ids in enumerate(arrays):
        # bpe-openai reads -1 as its last token, and knows a gap between its words and its special tokens.
        check_range(index, ids, int(encoding.n_vocab))
        try:
            texts.append(str(encoding.decode(ids)))
        except KeyError as error:
            raise InputRejected(index, f"holds an id that is no token: {error.args[0]}.") from None
    return texts


def check_range(index: int, ids: Sequence[int], vocabulary_size: int) -> None:
    """Refuses ids outside of a vocabulary.

    Raises:
        InputRejected: for input `index`.
    """
    if min(ids) < 0 or max(ids) >= vocabulary_size:
        outside = next(each for each in ids if not 0 <= each < vocabulary_size)
        raise InputRejected(index, f"holds the id {outside}; the vocabulary has 0 to {vocabulary_size - 1}.")
