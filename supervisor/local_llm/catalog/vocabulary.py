"""Whether a tokenizer has certain tokens, without loading it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from local_llm.catalog.files import Folder, Unservable, read_start

# Added tokens stand before the vocabulary: 60 kB of them in Llama 3.
_HEAD_BYTES = 1 << 18
_LARGEST_BYTES = 64 << 20
_FILES = ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")
# That is not empty: a mapping, or the pairs of a Unigram model.
_VOCABULARY = re.compile(rb'"vocab"\s*:\s*[\[{]\s*[^\]}\s]')


def certainly_lacks(folder: Folder, tokens: Iterable[str]) -> bool:
    """Whether the tokenizer is known not to have one of `tokens`.

    Only tokenizer.json has a whole vocabulary; where it has none, nothing is known.
    """
    if "tokenizer.json" not in folder.names:
        return False
    wanted = [_as_written(token) for token in tokens]
    try:
        if _has_all(read_start(folder.at("tokenizer.json"), _HEAD_BYTES), wanted):
            return False
        names = [name for name in _FILES if name in folder.names]
        texts = [read_start(folder.at(name), _LARGEST_BYTES, whole=True) for name in names]
    except (OSError, Unservable):
        return False
    return _VOCABULARY.search(texts[-1]) is not None and not _has_all(b"\n".join(texts), wanted)


def _as_written(token: str) -> tuple[bytes, bytes]:
    """A token as JSON has it: with other letters than ASCII's as they are, and escaped."""
    return json.dumps(token, ensure_ascii=False).encode(), json.dumps(token).encode()


def _has_all(text: bytes, wanted: Iterable[tuple[bytes, bytes]]) -> bool:
    return all(any(form in text for form in forms) for forms in wanted)
