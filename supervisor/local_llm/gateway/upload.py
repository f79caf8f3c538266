"""Uploads while they wait for their worker: read once, kept on disk, sent as they came."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import IO

from anyio import to_thread
from starlette.types import Receive, Scope

from local_llm.errors import Unavailable
from local_llm.gateway.multipart import FormReader
from local_llm.gateway.request import Asked, BodyBudget, HeldBody

PIECE_BYTES = 1 << 18
"""Written and read at once, each time by a thread; an upload that is smaller touches no disk."""


class UploadBudget(BodyBudget):
    """Bounds uploads, one by one and all together, on disk."""

    EACH_SETTING = "max_upload_bytes"
    TOTAL_SETTING = "max_waiting_upload_bytes"

    def holding(self) -> HeldUpload:
        """An upload's share, a context manager; given back when left."""
        return HeldUpload(self)


class HeldUpload(HeldBody):
    """One upload, from its first byte until its answer is whole."""

    WHOLE_SECONDS = 3600.0  # 512 MiB at little more than a megabit a second

    def __init__(self, budget: BodyBudget) -> None:
        super().__init__(budget)
        self._spool = Spool()
        self._reader: FormReader

    def asked(self) -> Asked:
        """What the whole form asks for; raises as `FormReader.asked`."""
        return self._reader.asked()

    async def read(self, scope: Scope, receive: Receive, *, has_come: bool = False) -> None:  # noqa: ARG002
        """As `HeldBody.read`, and looks for the model while it reads.

        Raises:
            InvalidRequest: as soon as it is certain that this form will not do.
            Unavailable: there is no place for it on disk.
        """
        self._reader = FormReader(scope["headers"])
        await self._read_pieces(scope, receive)
        self.content = await self._spool.finish()
        self.rest = None if self.content else self._spool

    async def _keep(self, piece: bytes) -> None:
        self._reader.feed(piece)
        await self._spool.add(piece)

    def answered(self) -> None:
        """Nothing: a worker may answer before it has read all that is still being sent to it."""

    def let_go(self) -> None:
        """Forgets the upload."""
        super().let_go()
        self.rest = None
        self._spool.close()


class Spool:
    """Bytes that are kept in memory while they are few, and then in a file without a name.

    It is gone with this process, however that ends. Iterating reads it from its beginning, each time.
    """

    def __init__(self) -> None:
        self._few = bytearray()
        self._file: IO[bytes] | None = None

    async def add(self, piece: bytes) -> None:
        """Appends; raises as `finish`."""
        self._few += piece
        if len(self._few) >= PIECE_BYTES:
            await to_thread.run_sync(self._write)

    async def finish(self) -> bytes:
        """There is no more.

        Returns:
            all of it, if it was few; then it is kept no more. Empty, if it is in the file.

        Raises:
            Unavailable: the file cannot be written.
        """
        if self._file is not None:
            await to_thread.run_sync(self._write)
        few = bytes(self._few)
        self._few.clear()
        return few

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._file is not None  # noqa: S101 - what was few is not iterated
        descriptor, offset = self._file.fileno(), 0
        while piece := await to_thread.run_sync(os.pread, descriptor, PIECE_BYTES, offset):
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Forgets it all."""
        self._few.clear()
        if self._file is not None:
            with suppress(OSError):  # it may flush once more what a full disk did not take
                self._file.close()

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            self._file.write(self._few)
            self._file.flush()
        except OSError as error:
            raise Unavailable(
                f"The upload cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}. "
                "TMPDIR can name a larger disk."
            ) from error
        self._few.clear()
