"""Reads the files of the model that is next into the page cache, while the present one still works.

A disk of 2 GB/s needs eight seconds for a 16 GB model: time in which the worker that has to go finishes its
answers. It touches no GPU, and costs nothing but reads that the load would do itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio

from local_llm.catalog.card import ModelCard
from local_llm.gpu import host_memory
from local_llm.settings import LoadSettings

logger = logging.getLogger(__name__)

_PIECE_BYTES = 8 << 20
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")

MEMORY_SHARE = 0.5
"""Of the host's free memory, at most: the page cache gives way, but not without work."""

# Where a file's pages do not stay in this host's cache, or where every read is somebody else's traffic.
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "ceph", "glusterfs", "afs", "gpfs", "beegfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")


class ReadAhead:
    """Reads one model's files at a time; whoever is next comes first.

    Args:
        settings: whether, and where.
        still_wanted: whether a model's load has yet to read its files; asked before every piece.
    """

    def __init__(self, settings: LoadSettings, still_wanted: Callable[[ModelCard], bool]) -> None:
        self._mode = settings.read_ahead
        self._still_wanted = still_wanted
        self._next: ModelCard | None = None
        self._news = anyio.Event()

    def foresee(self, card: ModelCard | None) -> None:
        """This model will be loaded next; None: nobody waits for another one."""
        if self._mode != "off" and card != self._next:
            self._next = card
            self._news.set()

    async def run(self) -> None:
        """Reads whatever is foreseen, until it is cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            card = self._next
            if card is not None:
                await anyio.to_thread.run_sync(self._read, card)

    def _read(self, card: ModelCard) -> None:
        """In a thread. Ends when all is read, the load reads itself, or another model is next."""
        budget = int(host_memory().free_bytes * MEMORY_SHARE)
        read_bytes = 0
        folders = (card.path, *(adapter.path for adapter in card.adapters))
        for piece_bytes in (
            size for each in folders for size in pieces(each, local_only=self._mode == "local")
        ):
            read_bytes += piece_bytes
            if read_bytes > budget or not self._is_next(card):
                break
        logger.debug("read %d MB of %s ahead of its load", read_bytes >> 20, card.id)

    def _is_next(self, card: ModelCard) -> bool:
        return card == self._next or (self._next is None and self._still_wanted(card))


def pieces(folder: Path, *, local_only: bool) -> Iterator[int]:
    """Reads a model's weight files; yields the size of each piece when it is read.

    Args:
        folder: the model's; or its one file.
        local_only: leave those out that lie on another machine.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    files = {each for pattern in _WEIGHTS for each in folder.glob(pattern)}
    for file in [folder] if folder.is_file() else sorted(files):
        try:
            if local_only and is_remote(file):
                continue
            with file.open("rb", buffering=0) as opened:
                while size := opened.readinto(buffer):
                    yield size
        except OSError:  # it vanishes, or cannot be read: the load will say so
            continue


def is_remote(file: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether a file lies on a network file system; False where the kernel does not say."""
    try:
        device = file.stat().st_dev
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    # 36 35 98:0 /root /mount options [optional fields] - type source options
    kinds = (line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number)
    return any(kind in _NETWORK or kind.startswith("fuse.") for kind in kinds)
