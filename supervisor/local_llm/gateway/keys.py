"""Who may come in: API keys, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import Scope

from local_llm.errors import Unauthorized
from local_llm.settings import Settings


class KeysUnreadable(Exception):
    """The file of keys cannot be used; the message says why."""


def load_keys(settings: Settings) -> tuple[str, ...]:
    """The keys of the settings and of `api_keys_file`, one a line, `#` begins a comment line.

    Raises:
        KeysUnreadable: the file cannot be read or holds no key. Serving without keys instead would open
            to everybody what somebody meant to close.
    """
    if settings.api_keys_file is None:
        return settings.api_keys
    try:
        lines = settings.api_keys_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysUnreadable(f"api_keys_file {settings.api_keys_file}: {error}") from None
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise KeysUnreadable(f"api_keys_file {settings.api_keys_file} holds no key")
    return (*settings.api_keys, *found)


class KeyCheck:
    """Lets in those who bring one of `keys`; everybody, if there are none."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    @property
    def wanted(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._keys)

    def check(self, scope: Scope) -> None:
        """Looks at `Authorization: Bearer` and `x-api-key`.

        Raises:
            Unauthorized: neither brings a known key.
        """
        if not self._keys:
            return
        brought = [_key_of(name, value) for name, value in scope["headers"]]
        # Every comparison is made, so that the time tells nothing of which key came near.
        matches = [
            hmac.compare_digest(known, each) for each in brought if each is not None for known in self._keys
        ]
        if not any(matches):
            raise Unauthorized(
                "This server wants an API key: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
            )


def _key_of(name: bytes, value: bytes) -> bytes | None:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, key = value.partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None
    return None
