"""Which of a model's prompts a request asks for."""

from __future__ import annotations

from collections.abc import Mapping

from local_llm_worker.pooling.errors import BadRequest

# What clients call the role of a text (Cohere, Voyage, NVIDIA), and what model folders call its prompt.
_QUERY = ("query", "search_query", "retrieval.query", "web_search_query", "s2p_query")
_DOCUMENT = ("document", "passage", "search_document", "retrieval.passage", "corpus")
_PROMPTS_OF: Mapping[str, tuple[str, ...]] = {
    "query": _QUERY,
    "search_query": _QUERY,
    "document": _DOCUMENT,
    "passage": _DOCUMENT,
    "search_document": _DOCUMENT,
    "classification": ("classification", "Classification"),
    "clustering": ("clustering", "Clustering"),
}


def choose_prompt(
    prompts: Mapping[str, str], default: str | None, *, prompt_name: str | None, input_type: str | None
) -> str | None:
    """The text to put before each input; none if the request asks for none and the folder names none.

    Args:
        prompts: the model's own.
        default: applies to requests that ask for nothing.
        prompt_name: one of `prompts`.
        input_type: the role of the text; a model without a prompt for a known role gets the bare text.

    Raises:
        BadRequest: neither is known, or both are given.
    """
    if prompt_name is not None and input_type is not None:
        raise BadRequest("Send prompt_name or input_type, not both.", param="prompt_name")
    if prompt_name is not None:
        if prompt_name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise BadRequest(
                f"prompt_name {prompt_name!r} is not known; this model has: {known}.", param="prompt_name"
            )
        return prompts[prompt_name] or None
    if input_type is not None:
        if input_type not in _PROMPTS_OF:
            known = ", ".join(_PROMPTS_OF)
            raise BadRequest(f"input_type {input_type!r} is not one of: {known}.", param="input_type")
        return next((prompts[name] for name in _PROMPTS_OF[input_type] if prompts.get(name)), None)
    return default or None
