"""What clients send: decoded, checked, and errors that name the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from local_llm_worker.pooling.errors import BadRequest
from local_llm_worker.pooling.inputs import Pair

_SCORE_FIELDS = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)


class PoolingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Common to all endpoints. Unknown fields (`user`, ...) are ignored, as OpenAI's servers do."""

    model: str
    truncate_prompt_tokens: int | None = None


class EmbeddingRequest(PoolingRequest, frozen=True, kw_only=True):
    """`POST /v1/embeddings`."""

    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    prompt_name: str | None = None
    input_type: str | None = None

    def inputs(self) -> list[str] | list[list[int]]:
        """Texts, or token arrays; never a mixture, never empty.

        Raises:
            BadRequest: neither of the two.
        """
        if isinstance(self.input, str):
            return [self.input]
        if not self.input:
            raise BadRequest("input is an empty list; send at least one text.", param="input")
        if type(self.input[0]) is int:
            return [_token_array(self.input, "input")]
        if isinstance(self.input[0], list):
            return [_token_array(each, f"input[{index}]") for index, each in enumerate(self.input)]
        return _texts(self.input, "input")

    def field_of(self, index: int) -> str:
        """What the client calls the input with that number."""
        return f"input[{index}]" if _is_several(self.input) else "input"


class PairRequest(PoolingRequest, frozen=True, kw_only=True):
    """Common to `/rerank` and `/score`."""

    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    use_activation: bool | None = None
    instruction: str | None = None

    def check(self) -> None:
        """Refuses numbers that make no sense.

        Raises:
            BadRequest: naming the field.
        """
        for name in ("max_tokens_per_query", "max_tokens_per_doc"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadRequest(f"{name} must be 1 or more.", param=name)


class RerankRequest(PairRequest, frozen=True, kw_only=True):
    """`POST /rerank` and its siblings, as Jina, Cohere and vLLM clients send it."""

    query: str | dict[str, Any]
    documents: str | list[Any]
    top_n: int | None = None
    return_documents: bool | None = None

    def pairs(self) -> list[Pair]:
        """The query with each document.

        Raises:
            BadRequest: no document, or one that is neither a text nor an object with one.
        """
        query = _text(self.query, "query")
        documents = [self.documents] if isinstance(self.documents, str) else self.documents
        if not documents:
            raise BadRequest("documents is an empty list; send at least one document.", param="documents")
        return [(query, _text(each, f"documents[{index}]")) for index, each in enumerate(documents)]

    def check(self) -> None:
        """As for all pairs, and `top_n`.

        Raises:
            BadRequest: naming the field.
        """
        super().check()
        if self.top_n is not None and self.top_n < 0:
            raise BadRequest("top_n must be 0 (all documents) or more.", param="top_n")

    def field_of(self, index: int) -> str:
        """What the client calls the input with that number."""
        return f"documents[{index}]"


class ScoreRequest(PairRequest, frozen=True, kw_only=True):
    """`POST /score`: two texts, one with many, or many with as many; one pair of the fields is given."""

    queries: str | list[Any] | None = None
    documents: str | list[Any] | None = None
    items: str | list[Any] | None = None
    data_1: str | list[Any] | None = None
    data_2: str | list[Any] | None = None
    text_1: str | list[Any] | None = None
    text_2: str | list[Any] | None = None

    def pairs(self) -> list[Pair]:
        """What is compared with what, in the order of the input.

        Raises:
            BadRequest: no pair of fields, an empty list, or lists that do not match.
        """
        left_name, right_name = self._names()
        left = _text_list(getattr(self, left_name), left_name)
        right = _text_list(getattr(self, right_name), right_name)
        if len(left) == 1:
            left *= len(right)
        if len(left) != len(right):
            raise BadRequest(
                f"{left_name} has {len(left)} texts and {right_name} has {len(right)}; send one with many, "
                "or as many as there are on the other side.",
                param=left_name,
            )
        return list(zip(left, right, strict=True))

    def field_of(self, index: int) -> str:
        """What the client calls the input with that number."""
        name = self._names()[1]
        return f"{name}[{index}]" if _is_several(getattr(self, name)) else name

    def _names(self) -> tuple[str, str]:
        for names in _SCORE_FIELDS:
            if all(getattr(self, name) is not None for name in names):
                return names
        wanted = ", ".join(f"{left} and {right}" for left, right in _SCORE_FIELDS)
        raise BadRequest(f"Send one of these pairs: {wanted}.")


Request = TypeVar("Request", bound=PoolingRequest)


def decode(body: bytes, kind: type[Request]) -> Request:
    """Reads a body as a request of that kind.

    Raises:
        BadRequest: no JSON, or a field that is missing or of the wrong type; names the field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(body, error) from None


def _wrong_field(complaint: str) -> BadRequest:
    """From msgspec's "Expected `str`, got `int` - at `$.model`" or "... missing required field `model`"."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`", complaint)
    if missing:
        return BadRequest(f"{missing[1]} is missing.", param=missing[1])
    placed = re.fullmatch(r"(.*) - at `\$\.?(.+)`", complaint)
    if placed:
        return BadRequest(f"{placed[2]}: {placed[1]}.", param=placed[2])
    return BadRequest(f"The body is not what this endpoint takes: {complaint}.")


def _not_json(body: bytes, error: Exception) -> BadRequest:
    """Python's clients write NaN and Infinity, which JSON does not have: then the field is named."""
    try:
        content = json.loads(body)
        field = next(_fields_without_number(content, ""), None)
    except (ValueError, RecursionError):
        field = None
    if field is None:
        return BadRequest(f"The body is no JSON: {error}.")
    return BadRequest(f"{field} is NaN or infinite, which JSON does not have.", param=field)


def _fields_without_number(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _fields_without_number(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _fields_without_number(each, f"{path}[{index}]")


def _is_several(value: Any) -> bool:
    """Whether a field holds a list of inputs, and not one input (a text or a token array)."""
    return isinstance(value, list) and type(value[0]) is not int


def _token_array(value: Any, field: str) -> list[int]:
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise BadRequest(f"{field} must be an array of token ids, as the first input is.", param=field)
    if not value:
        raise BadRequest(f"{field} is an empty array of token ids.", param=field)
    return value


def _texts(values: Sequence[Any], field: str) -> list[str]:
    for index, each in enumerate(values):
        if not isinstance(each, str):
            raise BadRequest(
                f"{field}[{index}] must be a text, not {_json_name(each)}.", param=f"{field}[{index}]"
            )
    return list(values)


def _text_list(value: str | list[Any], field: str) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not value:
        raise BadRequest(f"{field} is an empty list; send at least one text.", param=field)
    return [_text(each, f"{field}[{index}]") for index, each in enumerate(value)]


def _text(value: Any, field: str) -> str:
    """A text, or what an object like ``{"text": ...}`` holds."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadRequest(
            f'{field} must be a text or an object {{"text": ...}}, not {_json_name(value)}.', param=field
        )
    return text


def _json_name(value: Any) -> str:
    if isinstance(value, dict):
        return "an object without it"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return names.get(type(value), "a text")
