"""Looking at files without trusting them: what was seen, whether it still holds, and small JSON files.

Model folders come from anywhere: half a download, a disk that went away, a FIFO called config.json, a
gigabyte of brackets. Nothing here blocks, reads without a limit, or lets such a file's error through.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Sequence
from typing import TypeAlias

CONFIG_LIMIT_BYTES = 4 << 20
INDEX_LIMIT_BYTES = 16 << 20

# A time stamp younger than this proves nothing: the file may change again within the same tick of the
# file system's clock (4 ms on ext4, 2 s on FAT) and look the same. git calls such entries racy.
_RACY_NS = 2_000_000_000

Stamp: TypeAlias = "tuple[int, int, int, int] | None"


class Unservable(Exception):
    """A folder, or a file of it, cannot be used; the message is the reason, for people."""


class Watch:
    """Remembers how files and folders looked, and tells later whether they still look so."""

    __slots__ = ("_settled", "_stamps")

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}
        self._settled = True

    @classmethod
    def of(cls, watches: Iterable[Watch]) -> Watch:
        """What several have seen, in one, which is asked sooner than thousands."""
        one = cls()
        for each in watches:
            one._settled &= each._settled  # noqa: SLF001 (one of this class)
            for path, stamp in each._stamps.items():  # noqa: SLF001
                one._settled &= one._stamps.setdefault(path, stamp) == stamp
        return one

    def see(self, path: str) -> os.stat_result | None:
        """Remembers `path` as it is now. Call it before reading what is there, never after.

        Returns:
            What stat says, links followed; None if there is nothing to be seen.
        """
        status = look(path)
        self.remember(path, status)
        return status

    def remember(self, path: str, status: os.stat_result | None) -> None:
        """Remembers that `path` looked like `status` before it was read."""
        stamp = _stamp(status)
        changed_meanwhile = self._stamps.setdefault(path, stamp) != stamp
        racy = status is not None and time.time_ns() - status.st_ctime_ns < _RACY_NS
        if changed_meanwhile or racy:
            self._settled = False

    def fingerprints(self, folder: str) -> Sequence[tuple[str, int, int]]:
        """Name below `folder`, size and mtime_ns of every file that was seen there."""
        return [
            (path[len(folder) :], stamp[1], stamp[2])
            for path, stamp in self._stamps.items()
            if stamp is not None and path.startswith(f"{folder}/")
        ]

    def holds(self) -> bool:
        """Whether all that was seen is certainly unchanged; one stat for each path."""
        if not self._settled:
            return False
        for path, seen in self._stamps.items():
            now = look(path)
            if now is None:
                if seen is not None:
                    return False
            elif (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) != seen:
                return False
        return True


class Folder:
    """One folder; every file of it that is looked at is remembered in a watch.

    Attributes:
        path: the folder.
        names: what it holds, hidden files included; empty until it is listed.
        front: watches the folder itself and its small files.
        weights: watches its weight files, which can be many.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.front = Watch()
        self.weights = Watch()
        self.front.see(path)
        self.names: frozenset[str] = frozenset()

    def list(self) -> None:
        """Learns what the folder holds.

        Raises:
            Unservable: it cannot be listed.
        """
        self.names = list_names(self.path)

    def at(self, name: str) -> str:
        """The path of `name` in this folder; the caller has made sure that it does not lead outside."""
        return f"{self.path}/{name}"

    def has_file(self, name: str) -> bool:
        """Whether `name` is a file with content, which is watched from now on."""
        return _has_content(self.front.see(self.at(name)))

    def weight_size(self, name: str) -> int:
        """The size of a weight file in bytes; 0 if it is missing, a dangling link or no file."""
        status = self.weights.see(self.at(name))
        return status.st_size if status is not None and _has_content(status) else 0

    def fingerprint(self) -> str:
        """Changes with every file that was seen so far."""
        seen = (*self.front.fingerprints(self.path), *self.weights.fingerprints(self.path))
        return hashlib.sha256(repr(sorted(seen)).encode()).hexdigest()[:16]

    def read_object(self, name: str, limit_bytes: int = CONFIG_LIMIT_BYTES) -> dict[str, object]:
        """The JSON object in file `name`, which is watched from now on.

        Raises:
            Unservable: it is missing, too large, damaged, or no object.
        """
        value = self.read_json(name, limit_bytes)
        if not isinstance(value, dict):
            raise Unservable(f"{name} is not a JSON object")
        return value

    def read_json(self, name: str, limit_bytes: int = CONFIG_LIMIT_BYTES) -> object:
        """The JSON value in file `name`; raises as `read_object` does."""
        self.front.see(self.at(name))
        try:
            value: object = json.loads(read_start(self.at(name), limit_bytes, whole=True))
        except OSError as error:
            raise Unservable(f"{name} cannot be read: {error.strerror or error}") from error
        except Unservable as error:
            raise Unservable(f"{name} {error}") from error
        except RecursionError as error:
            raise Unservable(f"{name} is nested too deeply") from error
        except ValueError as error:  # JSON, UTF-8, or a number of more digits than Python parses
            raise Unservable(f"{name} is not valid JSON") from error
        return value


def printable(text: str) -> str:
    """`text` with a question mark for each character that is no clean text, such as a name's stray byte."""
    return "".join(char if char.isprintable() else "?" for char in text)


def look(path: str) -> os.stat_result | None:
    """What stat says of `path`, links followed; None if there is nothing to be seen."""
    try:
        return os.stat(path)  # noqa: PTH116 (a thousand folders are looked at within 20 ms)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None


def read_start(path: str, limit_bytes: int, *, whole: bool = False) -> bytes:
    """At most `limit_bytes` from the start of a regular file.

    Args:
        path: the file; a link is followed.
        limit_bytes: no more than this is read.
        whole: a longer file is an error.

    Raises:
        OSError: it cannot be opened or read.
        Unservable: it is no regular file, or longer than a `whole` one may be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unservable("is not a regular file")
        if whole and status.st_size > limit_bytes:
            raise Unservable(f"is larger than {limit_bytes >> 20} MiB")
        return os.read(descriptor, min(limit_bytes, status.st_size))
    finally:
        os.close(descriptor)


def list_names(path: str) -> frozenset[str]:
    """The names in a folder.

    Raises:
        Unservable: it cannot be listed.
    """
    try:
        return frozenset(os.listdir(path))  # noqa: PTH208 (names, not paths)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unservable(f"the folder cannot be read: {reason}") from error


def names_or_none(path: str) -> frozenset[str]:
    """The names in a folder; none if it cannot be listed."""
    try:
        return list_names(path)
    except Unservable:
        return frozenset()


def _stamp(status: os.stat_result | None) -> Stamp:
    if status is None:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _has_content(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size > 0
