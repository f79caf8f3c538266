"""The settings as they hold now: their file is looked at, and what changes in it is put to use.

The file is read, not only its stamp: it has a few kilobytes, an editor may write it twice within one tick of
the file system's clock, and a Kubernetes ConfigMap changes by a symbolic link far above it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from local_llm.settings import Settings
from local_llm.settings_change import differences, needs_restart, with_settled
from local_llm.settings_sources import SettingsError, load_settings, read_settings_file

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
SETTLE_SECONDS = 0.2
"""A changed file is read a second time after so long: it may be half written."""


class LiveSettings:
    """Owns the settings. Where they are used, `current` is read anew, or told by `follow`.

    Args:
        file: YAML; None if there is none. It must exist if named.
        environment: wins over the file, as it was at the start.
        flags: win over both.
        look_every_seconds: between two looks at the file.
        settle_seconds: for which it must have stayed the same.

    Attributes:
        current: what holds now.

    Raises:
        SettingsError: one line per mistake.
    """

    def __init__(
        self,
        file: Path | None = None,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        *,
        look_every_seconds: float = LOOK_EVERY_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._file = file
        self._environment = dict(environment or {})
        self._flags = dict(flags or {})
        self._look_every_seconds = look_every_seconds
        self._settle_seconds = settle_seconds
        self._content = b"" if file is None else read_settings_file(file)
        self._missing: str | None = None
        self._refused: str | None = None
        self._waiting_for_restart: list[str] = []
        self._changed_at: float | None = None
        self.current = self._load(self._content)

    def tell(self) -> dict[str, Any]:
        """For status: which file, why its last change was refused, and what of it waits for a restart."""
        changed_at = self._changed_at
        return {
            "file": None if self._file is None else str(self._file),
            "refused": self._missing or self._refused,
            "needs_restart": self._waiting_for_restart,
            "changed_seconds_ago": None if changed_at is None else round(time.monotonic() - changed_at, 1),
        }

    async def follow(self, use: Callable[[Settings], Awaitable[None]]) -> None:
        """Looks at the file until it is cancelled.

        Args:
            use: called with `current` when it has become another.
        """
        # What a shell's <(...) gives can be read once only.
        if self._file is None or self._file.is_fifo() or self._file.is_char_device():
            return
        while True:
            await anyio.sleep(self._look_every_seconds)
            found = await self._read(self._file)
            if found == (self._missing or self._content):
                continue
            await anyio.sleep(self._settle_seconds)
            if await self._read(self._file) == found:
                await self._take(found, use)

    async def _read(self, file: Path) -> bytes | str:
        """Its content, or why there is none."""
        try:
            content = await anyio.to_thread.run_sync(read_settings_file, file)
        except SettingsError as error:
            return str(error)
        # An empty file would mean the defaults, and is what one is before it is written.
        return f"{file}: is empty" if self._content.strip() and not content.strip() else content

    async def _take(self, found: bytes | str, use: Callable[[Settings], Awaitable[None]]) -> None:
        if isinstance(found, str):
            if self._missing is None:
                log.warning("settings stay as they are: %s", found)
            self._missing = found
            return
        if self._missing is not None:
            log.info("settings can be read again: %s", self._file)
            self._missing = None
        if found != self._content:
            self._content = found
            await self._change(found, use)

    async def _change(self, content: bytes, use: Callable[[Settings], Awaitable[None]]) -> None:
        try:
            wanted = await anyio.to_thread.run_sync(self._load, content)
            self._refused = None
            await self._adopt(wanted, use)
        except SettingsError as error:
            self._refuse(str(error))
        except Exception as error:  # a bulkhead: no file may end a server that serves
            log.exception("a mistake in the supervisor")
            self._refuse(f"{self._file}: could not be used: {error!r}")

    def _refuse(self, why: str) -> None:
        self._refused = why
        log.error("settings refused, the old ones stay: %s", why.replace("\n", "; "))

    async def _adopt(self, wanted: Settings, use: Callable[[Settings], Awaitable[None]]) -> None:
        waiting = sorted({".".join(key) for key in differences(self.current, wanted) if needs_restart(key)})
        if waiting and waiting != self._waiting_for_restart:
            log.warning("settings: needs a restart: %s", ", ".join(waiting))
        self._waiting_for_restart = waiting
        settled = with_settled(self.current, wanted)
        changed = [".".join(key) for key in differences(self.current, settled)]
        if not changed:
            return
        self.current = settled
        self._changed_at = time.monotonic()
        await use(settled)
        log.info("settings applied: %s", ", ".join(changed))

    def _load(self, content: bytes) -> Settings:
        return load_settings(self._file, self._environment, self._flags, content=content)
