"""The run's temporary folder, and what earlier runs left of theirs.

A nanny removes its worker's folder and unlinks the worker's shared memory. What is here is for the
nanny that was killed, and for the supervisor that was.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

PREFIX = "local-llm-"
_LOCK = "supervisor.lock"
_UNLOCKED_FOR_SECONDS = 60.0

# The name the nanny writes its notes under (local_llm_worker.nanny.shared_memory.NOTES_FILE).
_NOTES_FILE = ".shared-memory"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's place for POSIX shared memory

# A Unix socket's path has at most 107 characters; ours adds about 20, and vLLM's a UUID of 36.
_LONGEST_BASE = 45


class RunFolder:
    """A folder for this run, locked while the supervisor lives; entered and left with `with`."""

    def __init__(self) -> None:
        self._base = _short_base()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._base))
        # Locked before it gets its name: another supervisor that starts now must not find it unlocked.
        unnamed = self.path / (_LOCK + ".new")
        self._lock = os.open(unnamed, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self.path / _LOCK)

    def __enter__(self) -> RunFolder:
        remove_stale(self._base)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def make(self, worker_id: str) -> Path:
        """A new empty folder for one worker."""
        folder = self.path / worker_id
        folder.mkdir(mode=0o700)
        return folder


def clean_after(temporary: Path, pids: Collection[int] = ()) -> None:
    """Does what a worker's nanny, or a template, would have done, had it lived: no process of it is left.

    Args:
        temporary: its own folder; it need not exist any more.
        pids: of its processes, as far as they were seen: a segment may bear one in its name
            (joblib's `sem.loky-4711-9e94alje`).
    """
    try:
        names = (temporary / _NOTES_FILE).read_text().split("\n")
    except OSError:
        names = []
    unlink_unmapped([*(name for name in names if name), *_named_after(pids)])
    shutil.rmtree(temporary, ignore_errors=True)


def _named_after(pids: Collection[int]) -> list[str]:
    if not pids:
        return []
    tokens = {str(pid) for pid in pids}
    try:
        names = [each.name for each in _SHARED_MEMORY.iterdir()]
    except OSError:
        return []
    return [name for name in names if tokens.intersection(re.split(r"[^0-9A-Za-z]+", name))]


def unlink_unmapped(names: Iterable[str]) -> list[str]:
    """Unlinks those shared-memory segments that no living process has mapped; returns them."""
    left = {name: inode for name in names if "/" not in name and (inode := _inode(name)) is not None}
    if left:
        mapped = _mapped()
        left = {name: inode for name, inode in left.items() if inode not in mapped}
    for name in left:
        with suppress(OSError):
            (_SHARED_MEMORY / name).unlink()
    return sorted(left)


def _inode(name: str) -> int | None:
    try:
        return (_SHARED_MEMORY / name).stat().st_ino
    except OSError:
        return None


def _mapped() -> set[int]:
    """Inodes of all shared-memory segments that any process has mapped.

    Not their names: a semaphore is made under another one (`nanny/proc.py` says how).
    """
    mapped: set[int] = set()
    device = _SHARED_MEMORY.stat().st_dev
    there = f"{os.major(device):02x}:{os.minor(device):02x}"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            for line in (entry / "maps").read_text(errors="surrogateescape").splitlines():
                if f" {_SHARED_MEMORY}/" in line and line.split(maxsplit=5)[3] == there:
                    mapped.add(int(line.split(maxsplit=5)[4]))
    return mapped


def remove_stale(base: str) -> None:
    """Removes the folders of supervisors that live no more.

    Args:
        base: the folder that holds them.
    """
    for folder in Path(base).glob(PREFIX + "*"):
        with suppress(OSError):
            if folder.stat().st_uid == os.geteuid() and _abandoned(folder):
                logger.info("removing what a dead supervisor left: %s", folder)
                for worker in folder.iterdir():
                    if worker.is_dir():
                        clean_after(worker)
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether no living supervisor holds the folder's lock."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Between the making of the folder and that of its lock there is a moment.
        return time.time() - folder.stat().st_mtime > _UNLOCKED_FOR_SECONDS
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)


def _short_base() -> str:
    """The usual folder for temporary files, unless its path is too long for sockets in it."""
    base = tempfile.gettempdir()
    return base if len(base) <= _LONGEST_BASE else "/tmp"  # noqa: S108
