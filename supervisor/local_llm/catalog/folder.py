"""One model folder: what it holds, and what that says, as facts. Decisions are in `kinds.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from local_llm.catalog import config
from local_llm.catalog.chat_templates import FoundTemplates, find_templates
from local_llm.catalog.files import INDEX_LIMIT_BYTES, Folder, Unservable, list_names
from local_llm.catalog.kinds import Signs, is_named_for_chat
from local_llm.catalog.weights import PICKLE_INDEX, SAFETENSORS_INDEX, refuse_empty_or_pointer, weigh

# Where `hf download --local-dir` keeps what it has not finished.
_DOWNLOAD_FOLDER = ".cache/huggingface/download"
_UNFINISHED = (".incomplete", ".aria2", ".part", ".crdownload")

_SIGNS_OF_A_MODEL = frozenset(
    (
        "config.json",
        "modules.json",
        "adapter_config.json",
        "model_index.json",
        SAFETENSORS_INDEX,
        PICKLE_INDEX,
    )
)
_WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".onnx")
# What a worker reads besides the weights: configuration, vocabulary, templates, code.
_SMALL_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
_FAST_TOKENIZER = "tokenizer.json"
_TOKENIZERS = ("tokenizer", "tekken", "vocab", "spiece", "sentencepiece")
# How images are prepared; transformers 5 writes the second.
_PREPARATIONS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a complete model folder says of itself.

    Attributes:
        signs: what can tell its kind.
        notes: further findings, for people.
        size_bytes: of the weights.
        context_length: tokens, from the configuration.
        sentence_length: tokens, from sentence_bert_config.json.
        created: modification time of the configuration, seconds since the epoch.
        fingerprint: changes with any file that a worker reads.
        weights: names of the weight files.
        pickled: these are Python pickles, not safetensors.
        own_code: config.json names Python code that lies in the folder.
        model_type: of the configuration.
        templates: its chat templates.
    """

    signs: Signs
    notes: tuple[str, ...]
    size_bytes: int
    context_length: int | None
    sentence_length: int | None
    created: int
    fingerprint: str
    weights: tuple[str, ...]
    pickled: bool
    own_code: bool
    model_type: str | None
    templates: FoundTemplates


def is_model_folder(path: str, names: Collection[str]) -> bool:
    """Whether a folder with these names in it is, or is about to become, a model."""
    return (
        not _SIGNS_OF_A_MODEL.isdisjoint(names)
        or any(name.endswith(_WEIGHT_SUFFIXES) or name.startswith("pytorch_model") for name in names)
        or is_unfinished(path, names)
    )


def is_unfinished(path: str, names: Collection[str]) -> bool:
    """Whether a download into this folder has not come to its end."""
    if any(name.endswith(_UNFINISHED) for name in names):
        return True
    if ".cache" not in names:
        return False
    try:
        return any(name.endswith(_UNFINISHED) for name in list_names(f"{path}/{_DOWNLOAD_FOLDER}"))
    except Unservable:
        return False


def examine(folder: Folder, name: str, *, downloading: bool) -> Facts:
    """Reads what a folder says of itself.

    Args:
        folder: to look into.
        name: the last part of the model's id.
        downloading: files of this model are known to be on their way.

    Raises:
        Unservable: it is incomplete or damaged.
    """
    downloading = downloading or is_unfinished(folder.path, folder.names)
    try:
        facts = _read(folder, name)
        # A download of a newer revision, or one given up, must not hide what is complete.
        if downloading and not facts.signs.tokenizer:
            raise Unservable("it has no tokenizer yet")
    except Unservable as error:
        if not downloading:
            raise
        raise Unservable(f"download incomplete: {error}") from error
    return facts


def _read(folder: Folder, name: str) -> Facts:
    config_name = _config_name(folder)
    settings = folder.read_object(config_name)
    part = config.diffusion_class(settings)
    if part is not None:
        raise Unservable(f"it is a part of a diffusion pipeline ({part}), which is not served")
    weights = weigh(folder)
    modules = _modules(folder)
    sentence = _optional_object(folder, "config_sentence_transformers.json")
    sentence_type = sentence.get("model_type")
    for each in folder.names:
        if each.endswith(_SMALL_SUFFIXES) and not each.startswith("."):
            status = folder.front.see(folder.at(each))
            if each == _FAST_TOKENIZER and status is not None:
                refuse_empty_or_pointer(folder, each, status.st_size)
    templates = find_templates(folder)
    model_type = settings.get("model_type")
    signs = Signs(
        name=name,
        architecture=config.architecture(settings) or config.mistral_architecture(settings),
        labels=config.label_count(settings),
        encoder_decoder=settings.get("is_encoder_decoder") is True,
        sentence_type=sentence_type if isinstance(sentence_type, str) else None,
        modules=tuple(kind for kind, _ in modules),
        template=templates.evidence or _template_of_mistral(folder, name),
        images=_images(folder, settings),
        mistral_format=config_name == "params.json",
        model_type=model_type if isinstance(model_type, str) else None,
        tokenizer=_has_tokenizer(folder),
    )
    changed = folder.front.see(folder.at(config_name))
    return Facts(
        signs=signs,
        notes=("its weights are Python pickles (.bin), not safetensors",) if weights.pickled else (),
        size_bytes=weights.size_bytes,
        context_length=config.context_length(settings),
        sentence_length=config.max_seq_length(_optional_object(folder, "sentence_bert_config.json")),
        created=int(changed.st_mtime) if changed else 0,
        fingerprint=folder.fingerprint(),
        weights=weights.names,
        pickled=weights.pickled,
        own_code=bool(settings.get("auto_map")),
        model_type=signs.model_type,
        templates=templates,
    )


def _config_name(folder: Folder) -> str:
    names = folder.names
    if "model_index.json" in names:
        raise Unservable("it is a diffusion pipeline (model_index.json), which is not served")
    if "config.json" in names:
        return "config.json"
    if _has_mistral_files(folder):
        return "params.json"  # vLLM takes it where there are consolidated weights
    if "adapter_config.json" in names:
        base = _optional_object(folder, "adapter_config.json").get("base_model_name_or_path")
        of = f" of {base}" if isinstance(base, str) and base.isprintable() else ""
        raise Unservable(f"it is an adapter{of} (adapter_config.json), not a whole model")
    gguf = sorted(name for name in names if name.endswith(".gguf"))
    if gguf and not any(name.endswith(".safetensors") for name in names):
        raise Unservable(f"it has only GGUF files ({gguf[0]}); config.json and safetensors are needed")
    raise Unservable("config.json is missing")


def _modules(folder: Folder) -> tuple[tuple[str, str], ...]:
    """Module types and folders of modules.json; a Pooling module must have its own config.json."""
    if "modules.json" not in folder.names:
        return ()
    modules = config.module_types(folder.read_json("modules.json"))
    for kind, path in modules:
        if kind == "Pooling" and path in folder.names and not folder.has_file(f"{path}/config.json"):
            raise Unservable(f"{path}/config.json is missing, which modules.json needs")
        if kind == "Pooling" and path not in folder.names:
            raise Unservable("modules.json names a Pooling folder that is missing")
    return modules


def _template_of_mistral(folder: Folder, name: str) -> str | None:
    """Evidence that Mistral's own tokenizer brings the chat template, for a folder that has no other.

    It brings one for base models too, such as Mistral-7B-v0.3: the settings of transformers' tokenizer,
    where they lie beside it, have a template if the model chats.
    """
    if not _has_mistral_files(folder):
        return None
    if "tokenizer_config.json" in folder.names and not is_named_for_chat(name):
        return None
    return "params.json beside Mistral's own files means a built-in chat template"


def _images(folder: Folder, settings: Mapping[str, object]) -> str | None:
    """What shows that the model takes images, as evidence: a part for them, and how they are prepared."""
    preparation = next((name for name in _PREPARATIONS if name in folder.names), None)
    if preparation is None or not config.takes_images(settings):
        return None
    return f"config.json has a part for images, and {preparation} is there"


def _has_mistral_files(folder: Folder) -> bool:
    """By vLLM's own sign (`is_mistral_model_repo`): a tekken.json alone changes nothing."""
    return "params.json" in folder.names and any(
        name.startswith("consolidated") and name.endswith(".safetensors") for name in folder.names
    )


def _has_tokenizer(folder: Folder) -> bool:
    return any(name.startswith(_TOKENIZERS) for name in folder.names)


def _optional_object(folder: Folder, name: str) -> Mapping[str, object]:
    """The JSON object in file `name`, empty if there is no such file; what is damaged is an error."""
    return folder.read_object(name, INDEX_LIMIT_BYTES) if name in folder.names else {}
