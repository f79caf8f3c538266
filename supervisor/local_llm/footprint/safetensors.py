"""The header of a safetensors file: what tensors it holds, without reading one of them.

Eight bytes tell the header's length, then it is JSON: dtype, shape and place of each tensor. A damaged
file may claim anything; nothing here allocates or believes what the file's own size does not bear out.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from local_llm.catalog.files import Unservable

HEADER_LIMIT_BYTES = 32 << 20
"""The format allows 100 MB, which decoded would be a gigabyte; the largest seen have a few megabytes."""

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}
"""Bits of one element. Those below eight are packed."""

_LENGTH_BYTES = 8
_MOST_DIMENSIONS = 32


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header.

    Attributes:
        name: of the tensor.
        dtype: safetensors' name, a key of `BITS`.
        shape: elements in each dimension; none for a scalar.
        size_bytes: in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.shape)


def tensors(path: str) -> Iterator[Tensor]:
    """What a file holds, in the header's order.

    Args:
        path: of the file; a link is followed.

    Raises:
        Unservable: it cannot be read, or its header contradicts itself or the file's size.
    """
    try:
        header, data_bytes = _read(path)
    except OSError as error:
        raise Unservable(f"cannot be read: {error.strerror or error}") from error
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise Unservable("has a header that is not valid JSON") from error
    if not isinstance(entries, dict):
        raise Unservable("has a header that is no JSON object")
    for name, entry in entries.items():
        if name != "__metadata__":
            yield _tensor(name, entry, data_bytes)


def _read(path: str) -> tuple[bytes, int]:
    """The header, and how many bytes of tensors follow it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unservable("is not a regular file")
        start = os.read(descriptor, _LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_BYTES or length > status.st_size - _LENGTH_BYTES:
            raise Unservable("is cut off within its header")
        if length > HEADER_LIMIT_BYTES:
            raise Unservable(f"has a header larger than {HEADER_LIMIT_BYTES >> 20} MiB")
        return os.read(descriptor, length), status.st_size - _LENGTH_BYTES - length
    finally:
        os.close(descriptor)


def _tensor(name: str, entry: object, data_bytes: int) -> Tensor:
    if not isinstance(entry, dict):
        raise Unservable("has a header with an entry that is no object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise Unservable("has a tensor of an unknown dtype")
    sizes, place = _sizes(shape, data_bytes), _sizes(offsets, data_bytes)
    begin, end = place if len(place) == 2 else (0, -1)
    if not 0 <= begin <= end <= data_bytes or math.prod(sizes) * bits != (end - begin) * 8:
        raise Unservable("has a tensor whose shape and place contradict each other")
    return Tensor(name, str(dtype), sizes, end - begin)


def _sizes(values: object, data_bytes: int) -> tuple[int, ...]:
    """A list of numbers none of which the file is too small for. (Two F4 fit one byte; an empty
    tensor may have any width beside its nought.)
    """
    if not isinstance(values, list) or len(values) > _MOST_DIMENSIONS:
        raise Unservable("has a tensor without shape or place")
    most = max(2 * data_bytes, 1 << 32)
    if not all(type(value) is int and 0 <= value <= most for value in values):
        raise Unservable("has a tensor whose shape or place is larger than the file")
    return tuple(values)
