"""Models that are no folder of safetensors: GGUF files, and servers that the settings give the command of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from local_llm import placeholders
from local_llm.arguments import value_of
from local_llm.catalog import gguf
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.files import Folder, Unservable, Watch
from local_llm.catalog.kinds import kind_by_name
from local_llm.catalog.walk import Location
from local_llm.model_settings import ModelSettings, is_glob
from local_llm.settings import Settings

GGUF_FILE_FLAG = "--gguf-file"
"""In a model's `args`: which of several files is meant."""

_COMMANDED = "the settings give its command"


def gguf_card(folder: Folder, location: Location, chosen: ModelSettings) -> ModelCard:
    """The card of a model in GGUF.

    Args:
        folder: where the file lies; listed.
        location: of the model; names the file if it lies in no folder of its own.
        chosen: what the settings say of it.

    Raises:
        Unservable: it is incomplete, damaged, or nothing that is served.
    """
    wanted = value_of(chosen.args, GGUF_FILE_FLAG) or location.file
    choice = gguf.choose(folder.names, wanted)
    size_bytes = gguf.weigh(folder, choice.files)
    first = choice.files[0]
    metadata = gguf.read_metadata(folder.at(first))
    engine = chosen.engine or Engine.TRANSFORMERS
    if chosen.engine is None:
        _refuse_what_transformers_cannot(metadata, choice)
    kind, why = _kind(metadata, chosen, location)
    evidence = [f"{first} is GGUF of architecture {metadata.architecture}", why]
    if choice.others and location.file is None:
        evidence.append(
            f"of {choice.others + 1} it is the one served; args: [{GGUF_FILE_FLAG}, NAME] chooses"
        )
    if chosen.engine is None:
        evidence.append("vLLM does not run GGUF; transformers' own serve does")
    else:
        evidence.append(_engine_evidence(chosen))
    changed = folder.weights.see(folder.at(first))
    return ModelCard(
        id=location.id,
        path=Path(folder.at(first) if location.file is not None else folder.path),
        kind=kind,
        engine=engine,
        evidence=tuple(evidence),
        size_bytes=size_bytes,
        context_length=metadata.context_length,
        architecture=metadata.architecture,
        created=int(changed.st_mtime) if changed else 0,
        fingerprint=folder.fingerprint(),
        weights=choice.files,
    )


def _refuse_what_transformers_cannot(metadata: gguf.Metadata, choice: gguf.Choice) -> None:
    instead = 'engine: command can run it (["llama-server", "-m", "{path}", "--port", "{port}"])'
    if metadata.architecture not in gguf.RUN_BY_TRANSFORMERS:
        raise Unservable(
            f"transformers does not read GGUF of architecture {metadata.architecture}; {instead}"
        )
    if len(choice.files) > 1:
        raise Unservable(
            f"transformers does not read GGUF in {len(choice.files)} parts: join them (llama-gguf-split "
            f"--merge), or {instead}"
        )


def _kind(metadata: gguf.Metadata, chosen: ModelSettings, location: Location) -> tuple[Kind, str]:
    if chosen.kind is not None:
        return chosen.kind, f"the settings choose {chosen.kind.value} as its kind"
    named = kind_by_name(location.id.rpartition("/")[2])
    if metadata.pools or named in (Kind.EMBEDDING, Kind.RERANKER):
        raise Unservable("GGUF of embedding models and rerankers is not served")
    if metadata.has_template:
        return Kind.CHAT, "its metadata has a chat template"
    return Kind.BASE, "its metadata has no chat template"


def commanded_card(location: Location, chosen: ModelSettings, folder: Folder | None = None) -> ModelCard:
    """The card of a model of which nothing is known but the command that serves it.

    Args:
        location: of the model; its path is what `{path}` means.
        chosen: what the settings say of it.
        folder: the model's own; None if it has none.

    Raises:
        Unservable: its command wants a path, and there is none.
    """
    status = location.order.see(location.path) if location.path else None
    if status is None and placeholders.names((*chosen.command, *chosen.args), "path"):
        where = f"{location.path} is not there" if location.path else "it has neither a folder nor a path"
        raise Unservable(f"its command needs {{path}}, and {where}")
    fingerprint = "" if status is None else f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ModelCard(
        id=location.id,
        path=Path(location.path),
        kind=chosen.kind or Kind.CHAT,
        engine=Engine.COMMAND,
        evidence=(_COMMANDED,) if chosen.kind else (_COMMANDED, "they name no kind, which means chat"),
        created=0 if status is None else int(status.st_mtime),
        fingerprint=fingerprint if folder is None else folder.fingerprint(),
    )


def _engine_evidence(chosen: ModelSettings) -> str:
    if chosen.engine is Engine.COMMAND:
        return _COMMANDED
    return f"the settings choose {chosen.engine.value} as its engine" if chosen.engine else ""


def commanded_locations(settings: Settings, models_dir: Path, present: Collection[str]) -> Iterator[Location]:
    """Models of the settings that were not found in the models folder: exact ids with a command.

    Args:
        settings: all of them.
        models_dir: a folder or file of the model's name in it is its path, if the settings give none.
        present: ids of the models that were found.
    """
    for model_id in settings.models:
        chosen = settings.model_settings(model_id)
        if chosen.engine is Engine.COMMAND and not is_glob(model_id) and model_id not in present:
            path = models_dir / model_id if chosen.path is None else chosen.path.expanduser().absolute()
            yield Location(model_id, str(path), order=Watch())
