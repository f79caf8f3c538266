"""API keys: who comes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm.errors import Unauthorized
from local_llm.gateway.keys import KeyCheck, KeysUnreadable, load_keys
from local_llm.settings import Settings

CHECK = KeyCheck(["first-key", "zweiter-schlüssel"])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer first-key")],
        [(b"authorization", b"bearer  first-key ")],
        [(b"x-api-key", b"first-key")],
        [(b"authorization", b"Bearer wrong"), (b"x-api-key", b"first-key")],
        [(b"authorization", "Bearer zweiter-schlüssel".encode())],
    ],
)
def test_a_known_key_comes_in(headers: list[tuple[bytes, bytes]]) -> None:
    """Either header will do."""
    CHECK.check({"headers": headers})


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Basic first-key")],
        [(b"authorization", b"first-key")],
        [(b"authorization", b"Bearer ")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"first-keyy")],
        [(b"cookie", b"first-key")],
    ],
)
def test_anything_else_stays_out(headers: list[tuple[bytes, bytes]]) -> None:
    """401, saying how a key is sent."""
    with pytest.raises(Unauthorized, match="Authorization: Bearer KEY") as caught:
        CHECK.check({"headers": headers})
    assert caught.value.headers() == {"www-authenticate": "Bearer"}


def test_without_keys_everybody_comes_in() -> None:
    """The default on the loopback."""
    KeyCheck([]).check({"headers": []})


def test_keys_come_from_the_settings_and_the_file(tmp_path: Path) -> None:
    """One a line; blank lines and comments are none."""
    file = tmp_path / "keys"
    file.write_text("# ours\n\n from-file \nsecond\n")
    settings = Settings(api_keys=("from-settings",), api_keys_file=file)
    assert load_keys(settings) == ("from-settings", "from-file", "second")


@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_a_file_without_keys_never_opens_the_server(tmp_path: Path, content: str | None) -> None:
    """Missing or empty: an error, not a server without keys."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KeysUnreadable, match="api_keys_file"):
        load_keys(Settings(api_keys_file=file))
