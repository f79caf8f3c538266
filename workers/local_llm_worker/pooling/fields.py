"""Fields of requests: what they hold, checked, and errors that name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local_llm_worker.pooling.errors import BadRequest
from local_llm_worker.pooling.inputs import Pair


def is_several(value: Any) -> bool:
    """Whether a field holds a list of inputs, and not one input (a text or a token array)."""
    return isinstance(value, list) and type(value[0]) is not int


def token_array(value: Any, field: str) -> list[int]:
    """Token ids, at least one; raises BadRequest."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise BadRequest(f"{field} must be an array of token ids, as the first input is.", param=field)
    if not value:
        raise BadRequest(f"{field} is an empty array of token ids.", param=field)
    return value


def texts(values: Sequence[Any], field: str) -> list[str]:
    """Nothing but texts; raises BadRequest."""
    for index, each in enumerate(values):
        if not isinstance(each, str):
            raise BadRequest(
                f"{field}[{index}] must be a text, not {_json_name(each)}.", param=f"{field}[{index}]"
            )
    return list(values)


def pair(value: Any, field: str) -> Pair:
    """Two texts; raises BadRequest."""
    if not isinstance(value, list) or [type(each) for each in value] != [str, str]:
        raise BadRequest(f"{field} must be a pair of texts, as the first input is.", param=field)
    return value[0], value[1]


def message(value: dict[str, Any], field: str) -> dict[str, Any]:
    """A message of a conversation, its parts put together as vLLM does; raises BadRequest."""
    if not isinstance(value.get("role"), str):
        raise BadRequest(f"{field}.role is missing.", param=f"{field}.role")
    content = value.get("content")
    if isinstance(content, list):
        content = "\n".join(text(each, f"{field}.content[{place}]") for place, each in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(
            f"{field}.content must be a text, not {_json_name(content)}.", param=f"{field}.content"
        )
    return {**value, "content": content}


def text_list(value: str | list[Any], field: str) -> list[str]:
    """Texts, at least one; raises BadRequest."""
    if isinstance(value, str):
        return [value]
    if not value:
        raise BadRequest(f"{field} is an empty list; send at least one text.", param=field)
    return [text(each, f"{field}[{index}]") for index, each in enumerate(value)]


def text(value: Any, field: str) -> str:
    """A text, or what an object like ``{"text": ...}`` holds; raises BadRequest."""
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
