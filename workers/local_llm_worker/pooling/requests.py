"""What clients send: decoded, checked, and errors that name the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import msgspec

from local_llm_worker.pooling.errors import BadRequest
from local_llm_worker.pooling.fields import is_several, message, pair, text, text_list, texts, token_array
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
            return [token_array(self.input, "input")]
        if isinstance(self.input[0], list):
            return [token_array(each, f"input[{index}]") for index, each in enumerate(self.input)]
        return texts(self.input, "input")

    def field_of(self, index: int) -> str:
        """What the client calls the input with that number."""
        return f"input[{index}]" if is_several(self.input) else "input"


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
        query = text(self.query, "query")
        documents = [self.documents] if isinstance(self.documents, str) else self.documents
        if not documents:
            raise BadRequest("documents is an empty list; send at least one document.", param="documents")
        return [(query, text(each, f"documents[{index}]")) for index, each in enumerate(documents)]

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
        left = text_list(getattr(self, left_name), left_name)
        right = text_list(getattr(self, right_name), right_name)
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
        return f"{name}[{index}]" if is_several(getattr(self, name)) else name

    def _names(self) -> tuple[str, str]:
        for names in _SCORE_FIELDS:
            if all(getattr(self, name) is not None for name in names):
                return names
        wanted = ", ".join(f"{left} and {right}" for left, right in _SCORE_FIELDS)
        raise BadRequest(f"Send one of these pairs: {wanted}.")


class ClassificationRequest(PoolingRequest, frozen=True, kw_only=True):
    """`POST /classify`, as vLLM takes it, and pairs of texts, which an NLI model needs."""

    input: str | list[Any] | None = None
    messages: list[dict[str, Any]] | None = None
    use_activation: bool | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def inputs(self) -> list[str] | list[Pair] | list[list[int]]:
        """Texts, pairs of them, or token arrays; never a mixture, never empty.

        Raises:
            BadRequest: none of these.
        """
        if self.input is None:
            raise BadRequest("Send input or messages.", param="input")
        if isinstance(self.input, str):
            return [self.input]
        if not self.input:
            raise BadRequest("input is an empty list; send at least one text.", param="input")
        first = self.input[0]
        if type(first) is int:
            return [token_array(self.input, "input")]
        if isinstance(first, list) and first and isinstance(first[0], str):
            return [pair(each, f"input[{index}]") for index, each in enumerate(self.input)]
        if isinstance(first, list):
            return [token_array(each, f"input[{index}]") for index, each in enumerate(self.input)]
        return texts(self.input, "input")

    def conversation(self) -> list[dict[str, Any]] | None:
        """The messages, each content as a text; None if there are none.

        Raises:
            BadRequest: one of them is no message, or holds more than text.
        """
        if self.messages is None:
            return None
        if self.input is not None:
            raise BadRequest("Send input or messages, not both.", param="messages")
        if not self.messages:
            raise BadRequest("messages is an empty list; send at least one message.", param="messages")
        return [message(each, f"messages[{index}]") for index, each in enumerate(self.messages)]

    def template_arguments(self) -> dict[str, Any]:
        """For the chat template.

        Raises:
            BadRequest: they exclude one another.
        """
        if self.add_generation_prompt and self.continue_final_message:
            raise BadRequest(
                "Send add_generation_prompt or continue_final_message, not both.",
                param="continue_final_message",
            )
        return {
            **(self.chat_template_kwargs or {}),
            "add_generation_prompt": self.add_generation_prompt,
            "continue_final_message": self.continue_final_message,
        }

    def field_of(self, index: int) -> str:
        """What the client calls the input with that number."""
        if self.input is None:
            return "messages"
        return f"input[{index}]" if is_several(self.input) else "input"


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
