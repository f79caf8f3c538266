"""Which files hold a model's weights, and whether all of them are there. Only their sizes are looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from local_llm.catalog.files import INDEX_LIMIT_BYTES, Folder, Unservable, read_start

SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,6})-of-(?P<total>\d{1,6})(?P<suffix>\.\w+)")
_MOST_SHARDS = 10_000
_MOST_NAMES_SHOWN = 4
# A clone without Git LFS holds a note of some 130 bytes in place of each large file.
_POINTER_LIMIT_BYTES = 1024
_POINTER_START = b"version https://git-lfs"
# aria2 gives a file its name and full length at once; this one beside it says it is not done.
_ARIA2_SUFFIX = ".aria2"

_FOREIGN_FORMATS = (
    (".gguf", "GGUF"),
    (".onnx", "ONNX"),
    (".h5", "TensorFlow"),
    (".msgpack", "Flax"),
    (".ot", "Rust"),
    (".pth", "original PyTorch"),
    (".pt", "PyTorch"),
)


@dataclass(frozen=True, slots=True)
class Weights:
    """A complete set of weight files.

    Attributes:
        names: of the files, sorted.
        size_bytes: of all together.
        pickled: they are Python pickles, not safetensors.
    """

    names: tuple[str, ...]
    size_bytes: int
    pickled: bool


def weigh(folder: Folder) -> Weights:
    """Finds the weights that an engine would load; safetensors are preferred to duplicates.

    Raises:
        Unservable: there are none, or some are missing, empty or mere pointers.
    """
    names = _needed(folder)
    sizes = {name: _size(folder, name) for name in names}
    absent = [name for name in names if not sizes[name]]
    if absent:
        what = "shards are" if len(names) > 1 else "weight file is"
        raise Unservable(f"{len(absent)} of {len(names)} {what} missing or empty: {_shown(absent)}")
    _refuse_pointers(folder, (name for name, size in sizes.items() if size <= _POINTER_LIMIT_BYTES))
    return Weights(tuple(names), sum(sizes.values()), names[0].endswith(".bin"))


def _needed(folder: Folder) -> Sequence[str]:
    if SAFETENSORS_INDEX in folder.names:
        return _indexed(folder, SAFETENSORS_INDEX)
    safetensors = [
        name
        for name in folder.names
        if name.endswith(".safetensors") and not name.startswith("adapter_model")
    ]
    native = [name for name in safetensors if name.startswith("consolidated")]
    if "model.safetensors" in safetensors:
        return ["model.safetensors"]
    if len(safetensors) > len(native):
        return _whole_set(name for name in safetensors if name not in native)
    if native:
        return _whole_set(native)
    if PICKLE_INDEX in folder.names:
        return _indexed(folder, PICKLE_INDEX)
    pickles = [name for name in folder.names if name.startswith("pytorch_model") and name.endswith(".bin")]
    if not pickles:
        raise Unservable(_why_none(folder))
    return _whole_set(pickles)


def _indexed(folder: Folder, index: str) -> Sequence[str]:
    weight_map = folder.read_object(index, INDEX_LIMIT_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Unservable(f"{index} has no weight_map")
    values = list(weight_map.values())  # one for each tensor, hundreds to tens of thousands
    names = set(values) if set(map(type, values)) == {str} else {""}
    if any(not name.isprintable() or "/" in name or name in {"", ".", ".."} for name in names):
        raise Unservable(f"{index} names something that is not a file of this folder")
    if len(names) > _MOST_SHARDS:
        raise Unservable(f"{index} names {len(names)} shards")
    return sorted(names)


def _whole_set(names: Iterable[str]) -> Sequence[str]:
    """All files of a numbered set, of which some may be missing; without numbers, the names as they are."""
    present = sorted(names)
    numbers: dict[tuple[str, str, str], set[str]] = {}
    for name in present:
        match = _NUMBERED.fullmatch(name)
        if match and 0 < int(match["total"]) <= _MOST_SHARDS:
            numbers.setdefault((match["stem"], match["total"], match["suffix"]), set()).add(match["number"])
    sets = [_numbered_set(*key, found) for key, found in numbers.items()]
    if not sets:
        return present
    # Leftovers of another export may lie beside it: any complete set will do.
    return next((each for each in sets if set(each) <= set(present)), sets[0])


def _numbered_set(stem: str, total: str, suffix: str, found: set[str]) -> list[str]:
    """The names from 1 to `total`, or from 0 where the first that was found is 0."""
    width = len(max(found, key=len))
    first = 0 if any(int(number) == 0 for number in found) else 1
    return [f"{stem}-{number:0{width}}-of-{total}{suffix}" for number in range(first, int(total) + first)]


def _size(folder: Folder, name: str) -> int:
    return 0 if name + _ARIA2_SUFFIX in folder.names else folder.weight_size(name)


def refuse_empty_or_pointer(folder: Folder, name: str, size_bytes: int) -> None:
    """That a file of any size but a large one is neither empty nor Git LFS's note in its place.

    Raises:
        Unservable: it is.
    """
    if not size_bytes:
        raise Unservable(f"{name} is empty")
    if size_bytes <= _POINTER_LIMIT_BYTES:
        _refuse_pointers(folder, (name,))


def _refuse_pointers(folder: Folder, small: Iterable[str]) -> None:
    for name in small:
        try:
            start = read_start(folder.at(name), len(_POINTER_START))
        except OSError as error:
            raise Unservable(f"{name} cannot be read: {error.strerror or error}") from error
        if start == _POINTER_START:
            raise Unservable(f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull`")


def _why_none(folder: Folder) -> str:
    for suffix, title in _FOREIGN_FORMATS:
        found = sorted(name for name in folder.names if name.endswith(suffix))
        if found:
            return f"it has only {title} weights ({found[0]}); safetensors are needed"
    if "onnx" in folder.names:
        return "it has only ONNX weights (onnx/); safetensors are needed"
    if "adapter_model.safetensors" in folder.names:
        return "it has only an adapter's weights (adapter_model.safetensors), not the base model's"
    return "it has no weight files (model.safetensors or the like)"


def _shown(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    shown = ", ".join(names[:_MOST_NAMES_SHOWN])
    more = len(names) - _MOST_NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
