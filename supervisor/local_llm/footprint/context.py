"""The longest context that vLLM 0.32 takes from a folder, before memory limits it. Pure."""

from __future__ import annotations

from local_llm.footprint.fields import Fields

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
    "n_ctx",
)
# Of these, max_position_embeddings is the scaled length already.
_SCALED_ALREADY = frozenset(
    ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")
)
_NO_LENGTH_SAID = 2048
_LONGEST = 100_000_000


def longest_context(text: Fields) -> int:
    """In tokens.

    Args:
        text: config section of the language model.
    """
    if (stated := text.count("model_max_length")) is not None:  # Cohere: larger than its positions
        return min(stated, _LONGEST)
    longest = min((length for name in _LENGTHS if (length := text.count(name)) is not None), default=None)
    if longest is None:
        return _NO_LENGTH_SAID
    rope = _rope(text)
    kind = rope.text("rope_type", "type") or "default"
    original = text.count("original_max_position_embeddings")
    if kind == "longrope" and original is not None:
        return original
    if kind not in _SCALED_ALREADY and "gemma3" not in text.model_type:
        longest = int(longest * (rope.number("factor") or 1.0))
    return min(longest, _LONGEST)


def _rope(text: Fields) -> Fields:
    """In transformers 5 `rope_parameters`, before it `rope_scaling`; the first of several layer types'."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = text.section(name)
        if rope.text("rope_type", "type") is not None:
            return rope
    return text.section("rope_parameters").section("full_attention")
