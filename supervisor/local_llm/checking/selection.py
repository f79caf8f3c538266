"""From what a person types to the models that are meant."""

from __future__ import annotations

from pathlib import Path

from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.errors import ModelBroken
from local_llm.settings import Settings

ADAPTER_CONFIG = "adapter_config.json"


def select(asked: str, settings: Settings) -> tuple[Settings, list[ModelCard | BrokenModel]]:
    """Finds what `asked` means.

    Args:
        asked: an id or alias in the models folder of the settings, else the path of a folder.
        settings: all of them.

    Returns:
        The settings with the models folder that was looked into, and the models, sorted by id; none if the
        folder holds none.

    Raises:
        ModelNotFound: it is neither a name nor a folder.
        ModelsDirUnreadable: the folder cannot be listed.
    """
    folder = Path(asked).expanduser()
    if folder.is_dir():
        return _in_folder(folder.resolve(), settings)
    catalog = Catalog(settings)
    try:
        return settings, [catalog.find(asked)]
    except ModelBroken:
        return settings, [each for each in catalog.snapshot().broken if each.id == asked]


def _in_folder(folder: Path, settings: Settings) -> tuple[Settings, list[ModelCard | BrokenModel]]:
    """The model that a folder is, under the name that the server would give it; or all that it holds."""
    models_dir = settings.models_dir.expanduser().resolve()
    if models_dir in folder.parents:
        known = [each for each in _all(settings) if _is_at(each, folder)]
        if known:
            return settings, known
    # An adapter is nothing without its base, which usually lies beside it.
    root = folder.parent if (folder / ADAPTER_CONFIG).is_file() else folder
    there = settings.model_copy(update={"models_dir": root})
    found = _all(there)
    return there, found if root == folder else [each for each in found if _is_at(each, folder)]


def _all(settings: Settings) -> list[ModelCard | BrokenModel]:
    found = Catalog(settings).snapshot()
    return sorted([*found.models, *found.broken], key=lambda each: each.id)


def _is_at(model: ModelCard | BrokenModel, folder: Path) -> bool:
    """Whether a model's files lie in a folder; of the Hugging Face cache, the repository's folder will do."""
    path = model.path.resolve()
    return path == folder or folder in path.parents
