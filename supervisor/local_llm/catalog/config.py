"""What the JSON files of a model folder say, whatever their fields may hold.

Pure functions over decoded JSON. A field of the wrong type counts as absent: the engine, not the
catalogue, is the judge of a model's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping

# Where families keep their context length, most common first.
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
    "n_ctx",
)
_LONGEST_CLASS_NAME = 200
_NESTED_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
_VISION_CONFIGS = ("vision_config", "visual", "vision_tower_config", "vit_config")
# Tokenizers write 1e30 for "no limit"; no model reads a hundred million tokens.
_LONGEST_CONTEXT = 100_000_000


def architecture(config: Mapping[str, object]) -> str | None:
    """``architectures[0]``, the name of a Python class, or None."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    if isinstance(first, str) and first.isidentifier() and len(first) <= _LONGEST_CLASS_NAME:
        return first
    return None


def mistral_architecture(params: Mapping[str, object]) -> str | None:
    """The class that vLLM runs Mistral's params.json as, where that is a multimodal one.

    From `transformers_utils/configs/mistral.py` of vLLM 0.32.0.
    """
    multimodal = params.get("multimodal")
    parts = multimodal if isinstance(multimodal, dict) else {}
    if params.get("vision_encoder") or parts.get("vision_encoder_args"):
        return "PixtralForConditionalGeneration"
    whisper = parts.get("whisper_model_args")
    encoder = whisper.get("encoder_args") if isinstance(whisper, dict) else None
    if not isinstance(encoder, dict) or not encoder:
        return None
    return "VoxtralRealtimeGeneration" if encoder.get("causal") else "VoxtralForConditionalGeneration"


def diffusion_class(config: Mapping[str, object]) -> str | None:
    """The class of a part of a diffusion pipeline, as diffusers writes it; None for anything else."""
    named = config.get("_class_name")
    return (
        named if isinstance(named, str) and named.isidentifier() and "_diffusers_version" in config else None
    )


def takes_images(config: Mapping[str, object]) -> bool:
    """Whether the configuration has a part for images."""
    return any(isinstance(config.get(key), dict) and bool(config[key]) for key in _VISION_CONFIGS)


def label_count(config: Mapping[str, object]) -> int | None:
    """How many labels a classification head has, if config.json says so: `id2label`, then `num_labels`.

    transformers leaves both out for its default of two labels.
    """
    labels = config.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    return _positive(config.get("num_labels"))


def context_length(config: Mapping[str, object]) -> int | None:
    """The longest input in tokens; a multimodal model's text part is looked at too."""
    for section in (config, *(config.get(key) for key in _NESTED_TEXT_CONFIGS)):
        if not isinstance(section, Mapping):
            continue
        for key in _CONTEXT_KEYS:
            length = _positive(section.get(key))
            if length is not None:
                return length
    return None


def max_seq_length(sentence_config: Mapping[str, object]) -> int | None:
    """The limit that sentence_bert_config.json sets for an embedding model, in tokens."""
    return _positive(sentence_config.get("max_seq_length"))


def module_types(modules: object) -> tuple[tuple[str, str], ...]:
    """The last part of each module's dotted type in modules.json, with the module's folder.

    ``sentence_transformers.models.Pooling`` and the newer, longer
    ``sentence_transformers.sentence_transformer.modules.pooling.Pooling`` are both ``Pooling``.
    """
    found = []
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and isinstance(module.get("type"), str):
            path = module.get("path")
            found.append((module["type"].rpartition(".")[2], path if isinstance(path, str) else ""))
    return tuple(found)


def has_template(tokenizer_config: Mapping[str, object]) -> bool:
    """Whether tokenizer_config.json or chat_template.json holds a chat template, or a list of named ones."""
    template = tokenizer_config.get("chat_template")
    return isinstance(template, (str, list)) and bool(template)


def _positive(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LONGEST_CONTEXT:
        return value
    return None
