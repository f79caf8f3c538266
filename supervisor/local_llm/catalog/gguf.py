"""GGUF files: which of a folder's is the model, and what its metadata says. Only its start is read.

The format is ggml's (`docs/gguf.md` in its repository): keys and values, then the tensors. Files come from
anywhere, so every count and length in them is taken for a claim.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from local_llm.catalog.files import Folder, Unservable, printable

SUFFIX = ".gguf"

RUN_BY_TRANSFORMERS = frozenset(
    [
        "bloom",
        "deci",
        "falcon",
        "gemma2",
        "gemma3",
        "gemma4",
        "gpt-oss",
        "gpt2",
        "gpt_oss",
        "lfm2",
        "llama",
        "mamba",
        "minimax-m2",
        "mistral",
        "nemotron",
        "phi3",
        "qwen2",
        "qwen2moe",
        "qwen3",
        "qwen35",
        "qwen35moe",
        "qwen3moe",
        "stablelm",
        "starcoder2",
    ]
)
"""Architectures, as GGUF calls them: those of `GGUF_SUPPORTED_ARCHITECTURES` and `GGUF_CONFIG_ARCHS` in
transformers 5.19 that write text."""

# Beside a model: its image part, and the data that a quantization was made from.
_BESIDE = re.compile(r"^mmproj|mmproj.*\.gguf$|imatrix", re.IGNORECASE)
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf")
# As llama.cpp picks from a repository: this one, then the next, then the first by name.
_PREFERRED = ("Q4_K_M", "Q8_0")

_MOST_PAIRS = 4096
_LONGEST_KEY_BYTES = 1 << 16
_LONGEST_STRING_BYTES = 1 << 20
_SHORT_LIST = 1024
_SEARCHED_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20
_LONGEST_CONTEXT = 100_000_000

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEMPLATE_KEY = b"tokenizer.chat_template"
_TEMPLATE = struct.pack("<Q", len(_TEMPLATE_KEY)) + _TEMPLATE_KEY + struct.pack("<I", _STRING)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        architecture: ``general.architecture``.
        context_length: in tokens; None if it does not say.
        has_template: it has a chat template.
        pools: it is made for embeddings or ranking.
    """

    architecture: str
    context_length: int | None
    has_template: bool
    pools: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The files that are the model.

    Attributes:
        files: one, or all parts of one, in their order.
        others: how many further models or quantizations lie beside it.
    """

    files: tuple[str, ...]
    others: int


def is_gguf_folder(names: Collection[str]) -> bool:
    """Whether GGUF files are all the weights of a folder with these names in it."""
    return any(name.endswith(SUFFIX) for name in names) and not any(
        name.endswith((".safetensors", ".safetensors.index.json"))
        or (name.startswith("pytorch_model") and name.endswith(".bin"))
        for name in names
    )


def bare_files(names: Collection[str]) -> list[tuple[str, str]]:
    """File and model name of each model among files that lie in no folder of their own."""
    found = []
    for first in sorted(_first_files(names)):
        part = _PART.fullmatch(first)
        found.append((first, part["stem"] if part else first.removesuffix(SUFFIX)))
    return found


def _first_files(names: Collection[str]) -> list[str]:
    """A file for each model or quantization, the first of those that are split."""
    found = []
    for name in names:
        part = _PART.fullmatch(name)
        if name.endswith(SUFFIX) and not _BESIDE.search(name) and (part is None or int(part["number"]) == 1):
            found.append(name)
    return found


def choose(names: Collection[str], wanted: str | None = None) -> Choice:
    """Picks the model among a folder's files.

    Args:
        names: of all its files.
        wanted: what the settings name.

    Raises:
        Unservable: there is none, what is wanted is not there, or a part of it is missing.
    """
    firsts = sorted(_first_files(names))
    if any(not name.isprintable() for name in firsts):
        raise Unservable("a GGUF file's name holds characters that cannot be printed: rename it")
    if wanted is not None:
        if wanted not in names:
            raise Unservable(f"the settings want {wanted}, which is not there")
        return Choice(_parts(wanted, names), len(firsts) - 1)
    if not firsts:
        raise Unservable("download incomplete: the first part of its GGUF files is missing")
    first = next((name for label in _PREFERRED for name in firsts if label in name.upper()), firsts[0])
    return Choice(_parts(first, names), len(firsts) - 1)


def _parts(first: str, names: Collection[str]) -> tuple[str, ...]:
    part = _PART.fullmatch(first)
    if part is None:
        return (first,)
    total = int(part["total"])
    wanted = (f"{part['stem']}-{number:05}-of-{part['total']}{SUFFIX}" for number in range(1, total + 1))
    parts = []
    for name in wanted:
        if name not in names:
            raise Unservable(f"download incomplete: {name} is missing")
        parts.append(name)
    return tuple(parts)


def weigh(folder: Folder, files: Sequence[str]) -> int:
    """Their size in bytes; they are watched from now on.

    Raises:
        Unservable: one is empty, or no file.
    """
    sizes = {name: folder.weight_size(name) for name in files}
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise Unservable(f"{empty[0]} is missing or empty")
    return sum(sizes.values())


def read_metadata(path: str) -> Metadata:
    """Reads the start of a file, 32 MiB at most.

    Raises:
        Unservable: it is no GGUF file, or a damaged one.
    """
    name = os.path.basename(path)  # noqa: PTH119 - a name for messages
    try:
        # A FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unservable(f"{name} is not a regular file")
            return _metadata(file)
    except OSError as error:
        raise Unservable(f"{name} cannot be read: {error.strerror or error}") from error
    except _Damaged as error:
        raise Unservable(f"{name} {error}") from error


class _Damaged(Exception):
    """The file is not what it should be; the message follows its name."""


def _metadata(file: BinaryIO) -> Metadata:
    magic = _take(file, 4)
    if magic == b"vers":
        raise _Damaged("is a Git LFS pointer, not the file itself: run `git lfs pull`")
    if magic != b"GGUF":
        raise _Damaged("is not a GGUF file")
    version, _, pairs = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3):
        raise _Damaged(f"is of a version of GGUF that is not read ({version})")
    if pairs > _MOST_PAIRS:
        raise _Damaged(f"claims {pairs} keys")
    values, all_read = _pairs(file, pairs)
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture.isprintable() or not architecture:
        raise _Damaged("does not say its architecture")
    purpose = values.get("general.type", "model")
    if purpose != "model":
        raise _Damaged(f"is no model, but of type {printable(str(purpose)[:50])}")
    length = values.get(f"{architecture}.context_length")
    has_template = bool(values.get(_TEMPLATE_KEY.decode()))
    return Metadata(
        architecture,
        length if isinstance(length, int) and 0 < length <= _LONGEST_CONTEXT else None,
        has_template if all_read else has_template or _template_follows(file),
        bool(values.get(f"{architecture}.pooling_type")),
    )


def _pairs(file: BinaryIO, count: int) -> tuple[dict[str, object], bool]:
    """Keys and values up to the vocabulary, and whether that was the end.

    It is the first long list of texts, which can only be passed over text by text; writers put it behind
    what describes the model.
    """
    values: dict[str, object] = {}
    for _ in range(count):
        key = _string(file, _LONGEST_KEY_BYTES).decode(errors="replace")
        (kind,) = struct.unpack("<I", _take(file, 4))
        if kind == _ARRAY:
            if not _passed_over(file):
                return values, False
        elif kind == _STRING:
            values[key] = _string(file, _LONGEST_STRING_BYTES).decode(errors="replace")
        elif kind in _NUMBERS:
            number = struct.Struct("<" + _NUMBERS[kind])
            (values[key],) = number.unpack(_take(file, number.size))
        else:
            raise _Damaged(f"holds a value of an unknown type ({kind})")
    return values, True


def _passed_over(file: BinaryIO) -> bool:
    """Whether a list lies behind now: not if it is one of many texts, or of lists."""
    of, length = struct.unpack("<IQ", _take(file, 12))
    if of in _NUMBERS:
        if length > _SEARCHED_BYTES:
            raise _Damaged(f"claims {length} numbers in one list")
        file.seek(length * struct.calcsize("<" + _NUMBERS[of]), os.SEEK_CUR)
        return True
    if of != _STRING or length > _SHORT_LIST:
        return False
    for _ in range(length):
        _string(file, _LONGEST_STRING_BYTES)
    return True


def _template_follows(file: BinaryIO) -> bool:
    """Whether a chat template comes in what has not been read yet."""
    before = b""
    for _ in range(_SEARCHED_BYTES // _PIECE_BYTES):
        piece = file.read(_PIECE_BYTES)
        if _TEMPLATE in before + piece:
            return True
        if len(piece) < _PIECE_BYTES:
            return False
        before = piece[-len(_TEMPLATE) :]
    return False


def _string(file: BinaryIO, longest_bytes: int) -> bytes:
    (length,) = struct.unpack("<Q", _take(file, 8))
    if length > longest_bytes:
        raise _Damaged(f"claims a text of {length} bytes")
    return _take(file, length)


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _Damaged("is damaged or incomplete: it ends within its metadata")
    return data
