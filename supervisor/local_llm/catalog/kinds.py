"""What a folder's signs say of its kind and engine. Pure: no file is touched here.

The rules are tried in the order of `_RULES`; the first that finds something decides. What a folder holds
comes before what it is called, and its name before the engine that the settings name as default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from local_llm.catalog import architectures
from local_llm.catalog.card import Engine, Kind
from local_llm.catalog.files import Unservable


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen in a folder that can tell its kind.

    Attributes:
        name: the last part of the model's id.
        architecture: ``architectures[0]`` of config.json.
        labels: of the classification head, where config.json says so.
        encoder_decoder: config.json's ``is_encoder_decoder``.
        sentence_type: ``model_type`` of config_sentence_transformers.json.
        modules: module types of modules.json, without their packages.
        template: where a chat template was found, as evidence; None if there is none.
        images: that its configuration has a part for images, as evidence; None if it has none.
        mistral_format: params.json instead of config.json.
        model_type: of config.json.
        tokenizer: whether a tokenizer's file is there.
    """

    name: str
    architecture: str | None = None
    labels: int | None = None
    encoder_decoder: bool = False
    sentence_type: str | None = None
    modules: tuple[str, ...] = ()
    template: str | None = None
    images: str | None = None
    mistral_format: bool = False
    model_type: str | None = None
    tokenizer: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """Kind and engine, and why."""

    kind: Kind
    engine: Engine
    evidence: tuple[str, ...]


Finding = tuple[Kind, tuple[str, ...]]

ENGINE_OF_KIND = {
    Kind.CHAT: Engine.VLLM,
    Kind.VISION_LANGUAGE: Engine.VLLM,
    Kind.BASE: Engine.VLLM,
    Kind.EMBEDDING: Engine.TRANSFORMERS,
    Kind.RERANKER: Engine.TRANSFORMERS,
    Kind.CLASSIFIER: Engine.TRANSFORMERS,
    Kind.TRANSCRIPTION: Engine.VLLM,
}

# A keyword ends where its word ends, or where a capital begins the next: "Embeddings" and "ChatGLM" are
# meant, the embedding model "instructor-large" is not. It may begin inside a word: "openchat".
_NAMES = (
    (re.compile(r"(?i:rerank(?:er)?s?)(?![a-z])"), Kind.RERANKER),
    (re.compile(r"(?i:embed(?:ding)?s?)(?![a-z])"), Kind.EMBEDDING),
    (re.compile(r"(?i:instruct|chat)(?![a-z])|(?i:chatglm)"), Kind.CHAT),
)

_GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel", "ChatModel")
# BertForMaskedLM and its like are encoders saved with their training head.
_ENCODERS = ("Model", "ForTextEncoding", "ForMaskedLM", "ForPreTraining")

# What Mistral AI calls the models that chat; "it" is Google's word for them.
_CHAT_WORDS = re.compile(r"instruct|chat|magistral|devstral|(?<![a-z])it(?![a-z])", re.IGNORECASE)
_REWARD = re.compile(r"(?i:reward)|(?:^|[-_])P?RM(?:[-_]|$)")

_SENTENCE_TYPES_NOT_SERVED = {
    "SparseEncoder": "sparse embeddings (SPLADE)",
    "MultiVectorEncoder": "multi-vector embeddings (ColBERT)",
    "ColBERT": "multi-vector embeddings (ColBERT)",
}


def decide(
    signs: Signs,
    *,
    default_engine: Engine,
    chosen_engine: Engine | None = None,
    chosen_kind: Kind | None = None,
) -> Decision:
    """Decides what a model is for and what runs it.

    Args:
        signs: what its folder shows.
        default_engine: for a folder whose content and name say nothing.
        chosen_engine: the settings' word for this model; it overrules the engine, not the kind.
        chosen_kind: the same for the kind, from which the engine follows.

    Raises:
        Unservable: it is a kind of model that is not served.
    """
    if chosen_kind is None:
        kind, evidence = _find(signs, default_engine)
    else:
        kind = chosen_kind
        evidence = (*_architecture(signs), f"the settings choose {kind.value} as its kind")
    engine = ENGINE_OF_KIND[kind]
    if chosen_engine is not None:
        engine = chosen_engine
        evidence = (*evidence, f"the settings choose {engine.value} as its engine")
    return Decision(kind, engine, evidence)


def _find(signs: Signs, default_engine: Engine) -> Finding:
    for rule in _RULES:
        finding = rule(signs)
        if finding is not None:
            return finding
    if default_engine is Engine.TRANSFORMERS:
        kind = Kind.EMBEDDING
    else:
        kind = Kind.CHAT if signs.template else Kind.BASE
    return kind, (
        *_architecture(signs),
        *_template(signs),
        f"neither content nor name tells its kind; the default engine is {default_engine.value}",
    )


def _by_sentence_type(signs: Signs) -> Finding | None:
    """A cross-encoder with one label ranks; with several (NLI) it classifies."""
    if signs.sentence_type in _SENTENCE_TYPES_NOT_SERVED:
        raise Unservable(f"{_SENTENCE_TYPES_NOT_SERVED[signs.sentence_type]} are not served")
    if signs.sentence_type != "CrossEncoder":
        return None
    evidence = "config_sentence_transformers.json says CrossEncoder"
    labels = signs.labels if signs.labels is not None else 2 if _has_class_head(signs) else 1
    if labels > 1 and "LogitScore" not in signs.modules:
        return Kind.CLASSIFIER, (evidence, f"config.json has {labels} labels")
    return Kind.RERANKER, (evidence,)


def _by_modules(signs: Signs) -> Finding | None:
    """Pooling makes an embedding model of any architecture; vLLM uses this very rule."""
    if "LogitScore" in signs.modules:
        return Kind.RERANKER, ("modules.json has LogitScore", *_architecture(signs))
    if "SpladePooling" in signs.modules:
        raise Unservable("sparse embeddings (SPLADE) are not served")
    if "Pooling" in signs.modules:
        return Kind.EMBEDDING, ("modules.json has Pooling", *_architecture(signs))
    if "CLIPModel" in signs.modules:
        raise Unservable("modules.json has CLIPModel, which is made for vision, which is not served")
    return None


def _by_classification_head(signs: Signs) -> Finding | None:
    """One label ranks, more classify; transformers leaves its default of two unsaid.

    Only the name tells a language model that ranks answers from one that ranks documents.
    """
    if not _has_class_head(signs):
        return None
    labels = signs.labels if signs.labels is not None else 2
    reward = _REWARD.search(signs.name)
    if labels == 1 and reward and not architectures.ENCODER.search(signs.architecture or ""):
        raise Unservable(f'its name contains "{reward.group()}": reward modelling is not served')
    said = f"config.json has {labels} label{'s' if labels > 1 else ''}"
    if signs.labels is None:
        said = "config.json names no labels, which means 2"
    return Kind.RERANKER if labels == 1 else Kind.CLASSIFIER, (*_architecture(signs), said)


def _by_transcription(signs: Signs) -> Finding | None:
    """Some of these chat as well, about what they hear; what they are made for counts."""
    if signs.architecture in architectures.TRANSCRIPTION:
        return Kind.TRANSCRIPTION, (*_architecture(signs), "it is made for transcription")
    return None


def _refuse_what_is_not_served(signs: Signs) -> None:
    name = signs.architecture or ""
    for pattern, purpose in architectures.NOT_SERVED:
        if pattern.search(name):
            raise Unservable(f"{name} is made for {purpose}, which is not served")
    if architectures.ENCODER_DECODER.fullmatch(name):
        raise Unservable(f"{name} is an encoder-decoder, which is not served")


def _by_language_model(signs: Signs) -> Finding | None:
    """A language model chats if it has a template or is called so; about images, if it takes them.

    Rerankers and embedding models built from one show it in modules.json; copies that lost that file show
    it only in their name, which therefore comes first.
    """
    if not _is_generative(signs):
        return None
    if signs.encoder_decoder and signs.architecture not in architectures.IMAGE_CHAT:
        raise Unservable(f"{signs.architecture} is an encoder-decoder, which is not served")
    images = _images(signs)
    evidence = (*_architecture(signs), *images)
    chats = Kind.VISION_LANGUAGE if images else Kind.CHAT
    named = _by_name(signs)
    if named is not None and named[0] is not Kind.CHAT:
        return named[0], (*evidence, *named[1])
    if signs.template:
        return chats, (*evidence, *_template(signs))
    if signs.architecture in architectures.TEMPLATES_OF_VLLM:
        return chats, (*evidence, "vLLM has a chat template for it")
    if named is not None:
        return chats, (*evidence, *named[1], "no chat template was found")
    return Kind.BASE, (*evidence, "no chat template was found")


def _is_generative(signs: Signs) -> bool:
    if signs.mistral_format:
        return True
    name = signs.architecture or ""
    return (
        name.endswith(_GENERATIVE)
        # Language models whose class is called like an encoder's.
        or name == "ChatGLMModel"
        or name in architectures.IMAGE_CHAT
        or name in architectures.AUDIO_CHAT
    )


def _images(signs: Signs) -> tuple[str, ...]:
    """The evidence that it takes images, if there is any."""
    if signs.architecture in architectures.IMAGE_CHAT:
        return ("it takes images",)
    # A text model cut out of a larger one may have kept the whole configuration.
    if signs.images and signs.architecture and not signs.architecture.endswith("ForCausalLM"):
        return (signs.images,)
    return ()


def _by_encoder(signs: Signs) -> Finding | None:
    """What reads no text has no tokenizer; an encoder of text without one is only not complete."""
    name = signs.architecture or ""
    if not name.endswith(_ENCODERS):
        return None
    if not (signs.tokenizer or signs.modules or architectures.ENCODER.search(name)):
        raise Unservable(f"there is no tokenizer, so {name} is not made for text; nothing else is served")
    return Kind.EMBEDDING, _architecture(signs)


def _by_model_type(signs: Signs) -> Finding | None:
    """Old encoders, such as Bio_ClinicalBERT, were published without a word of their class."""
    if signs.architecture is not None or signs.model_type not in architectures.ENCODER_TYPES:
        return None
    evidence = f"model_type is {signs.model_type}, and config.json names no architecture"
    named = _by_name(signs)
    if named is not None and named[0] is Kind.RERANKER:
        return Kind.RERANKER, (evidence, *named[1])
    return Kind.EMBEDDING, (evidence,)


def _by_name(signs: Signs) -> Finding | None:
    """The user's naming rule."""
    for pattern, kind in _NAMES:
        match = pattern.search(signs.name)
        if match:
            return kind, (f'name contains "{match.group()}"',)
    return None


def is_named_for_chat(name: str) -> bool:
    """Whether the last part of a model's id tells of a model that was taught to chat."""
    return _CHAT_WORDS.search(name) is not None


def kind_by_name(name: str) -> Kind | None:
    """What the last part of a model's id says of its kind, where it says anything."""
    found = _by_name(Signs(name))
    return None if found is None else found[0]


_RULES = (
    _by_sentence_type,
    _by_modules,
    _by_classification_head,
    _by_transcription,
    _refuse_what_is_not_served,
    _by_language_model,
    _by_encoder,
    _by_model_type,
    _by_name,
)


def _has_class_head(signs: Signs) -> bool:
    return signs.architecture is not None and signs.architecture.endswith("ForSequenceClassification")


def _architecture(signs: Signs) -> tuple[str, ...]:
    if signs.mistral_format:
        return ("params.json and consolidated weights are Mistral's own format",)
    return (f"architectures[0] is {signs.architecture}",) if signs.architecture else ()


def _template(signs: Signs) -> tuple[str, ...]:
    return (signs.template,) if signs.template else ()
