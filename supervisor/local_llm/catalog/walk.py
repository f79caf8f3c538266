"""From the models folder to the places where models lie; what they hold is not looked into here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local_llm.catalog import gguf
from local_llm.catalog.files import Unservable, Watch, list_names, look, names_or_none, printable, read_start
from local_llm.catalog.folder import is_model_folder
from local_llm.errors import Unavailable

_HUB_PREFIX = "models--"
_HUB_OTHERS = ("datasets--", "spaces--")
_REVISION_LIMIT_BYTES = 256


class ModelsDirUnreadable(Unavailable):
    """The models folder is missing or cannot be listed. The message is fit for a terminal too."""

    code = "models_dir_unreadable"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model lies.

    Attributes:
        id: ``name`` or ``org/name``.
        path: the folder to show people.
        folders: where to look for its files; the first that is complete is the model. In the Hugging
            Face cache these are snapshots, the one behind ``refs/main`` first, then by age.
        downloading: the Hugging Face cache holds unfinished files of it.
        problem: why nothing can be looked at; None if there is no problem.
        file: the GGUF file in the folder that is the model, where that has no folder of its own.
        order: watches what the order of `folders` came from.
    """

    id: str
    path: str
    folders: tuple[str, ...] = ()
    downloading: bool = False
    problem: str | None = None
    file: str | None = None
    order: Watch = field(default_factory=Watch, compare=False)


@dataclass(slots=True)
class Walk:
    """What a walk found.

    Attributes:
        locations: sorted by id; the same id may occur twice.
        root: watches the models folder itself.
        inner: watches what else was looked at on the way, except the models' own folders.
    """

    locations: tuple[Location, ...] = ()
    root: Watch = field(default_factory=Watch)
    inner: Watch = field(default_factory=Watch)


def walk(models_dir: Path) -> Walk:
    """Finds every model below `models_dir`, or the one that `models_dir` itself is.

    Raises:
        ModelsDirUnreadable: there is no such folder, or it cannot be listed.
    """
    path = str(models_dir)
    found = Walk()
    found.root.see(path)
    try:
        names = list_names(path)
    except Unservable as error:
        raise ModelsDirUnreadable(f"The models folder {path} cannot be used: {error}") from error
    locations = list(_models_in(path, "", found.inner, set()))
    bare = gguf.bare_files(names)
    locations += [Location(name, f"{path}/{file}", (path,), file=file) for file, name in bare]
    if "config.json" in names and (not locations or _has_weights(names)):
        locations = [Location(models_dir.name, path, (path,))]
    elif models_dir.name.startswith(_HUB_PREFIX) and "snapshots" in names:
        locations = list(_hub_model(path, models_dir.name, found.inner))
    found.locations = tuple(sorted(map(_with_clean_id, locations), key=lambda each: (each.id, each.path)))
    return found


def _has_weights(names: frozenset[str]) -> bool:
    return any(name.endswith((".safetensors", ".safetensors.index.json", ".bin")) for name in names)


def _models_in(root: str, prefix: str, watch: Watch, containers: set[tuple[int, int]]) -> Iterator[Location]:
    """Models in the folders of `root` and, unless `root` is an inner one already, one level below.

    Args:
        root: the folder to walk.
        prefix: of the ids, ``org/``; empty at the top.
        watch: what was looked at is added to it.
        containers: device and inode of the folders walked, so that one met again by a link counts once.
    """
    status = watch.see(root)
    if status is None or (status.st_dev, status.st_ino) in containers:
        return
    containers.add((status.st_dev, status.st_ino))
    for name in _subfolders(root):
        path, model_id = f"{root}/{name}", f"{prefix}{name}"
        status = look(path)
        try:
            names = list_names(path)
        except Unservable as error:
            watch.remember(path, status)
            yield Location(model_id, path, problem=str(error))
            continue
        if is_model_folder(path, names):
            yield Location(model_id, path, (path,))  # whoever looks into it watches it
            continue
        watch.remember(path, status)
        if name.startswith(_HUB_PREFIX) and not names.isdisjoint(("snapshots", "blobs")):
            yield from _hub_model(path, name, watch)
        elif not prefix:
            yield from _models_in(path, f"{name}/", watch, containers)


def _subfolders(root: str) -> list[str]:
    """Names of the folders in `root` that may hold models, links included; none if it cannot be read."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith((".", *_HUB_OTHERS)) and _is_folder(entry)
            )
    except OSError:
        return []  # gone since it was listed; the watch will tell


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _hub_model(repo: str, name: str, watch: Watch) -> Iterator[Location]:
    """The model of one repository folder of the Hugging Face cache, if it holds one.

    The ref is written before the files of its revision have come, so older snapshots are kept in view.
    """
    model_id = name.removeprefix(_HUB_PREFIX).replace("--", "/", 1)
    order = Watch()
    for path in (f"{repo}/refs/main", f"{repo}/snapshots"):
        order.remember(path, watch.see(path))
    watch.see(f"{repo}/blobs")
    downloading = any(each.endswith(".incomplete") for each in names_or_none(f"{repo}/blobs"))
    folders = _snapshots(repo, watch)
    if folders:
        yield Location(model_id, repo, folders, downloading, order=order)
    elif downloading:
        yield Location(model_id, repo, problem="download incomplete: no file of it is finished")


def _snapshots(repo: str, watch: Watch) -> tuple[str, ...]:
    """Snapshots that look like a model: the one of refs/main first, then the newest."""
    ages: dict[str, int] = {}
    for revision in names_or_none(f"{repo}/snapshots"):
        path = f"{repo}/snapshots/{revision}"
        status = watch.see(path)
        if status is not None and is_model_folder(path, names_or_none(path)):
            ages[revision] = status.st_mtime_ns
    try:
        main = read_start(f"{repo}/refs/main", _REVISION_LIMIT_BYTES).decode("ascii", "replace").strip()
    except (OSError, Unservable):
        main = ""
    ordered = sorted(ages, key=lambda revision: (revision == main, ages[revision]), reverse=True)
    return tuple(f"{repo}/snapshots/{revision}" for revision in ordered)


def _with_clean_id(location: Location) -> Location:
    """Ids go into JSON, logs and command lines: a name that is no clean text is a problem, not an id.

    The engines' command lines take the whole id and its last part as values; argparse takes what begins with
    a dash for an option.
    """
    if not location.id.isprintable():
        problem = "its folder's name holds characters that cannot be printed: rename it"
    elif any(part.startswith("-") for part in location.id.split("/")):
        problem = "its name begins with a dash, which a command line takes for an option: rename it"
    else:
        return location
    return Location(printable(location.id), location.path, problem=problem)
