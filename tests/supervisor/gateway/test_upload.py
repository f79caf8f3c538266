"""Uploads while they wait: a bounded part in memory, the rest in a file without a name."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_llm.errors import BodyTooLarge, InvalidRequest, Overloaded, Unavailable
from local_llm.gateway import upload as upload_module
from local_llm.gateway.request import ClientLeft
from local_llm.gateway.upload import PIECE_BYTES, HeldUpload, Spool, UploadBudget
from tests.supervisor.gateway.forms import HEADERS, cut, form, part
from tests.supervisor.gateway.test_request import receiving

SCOPE: dict[str, Any] = {"headers": HEADERS}
SMALL = form(part("model", "a"), part("file", b"sound", filename="a.wav"))
LARGE = form(part("file", os.urandom(3 * PIECE_BYTES), filename="a.wav"), part("model", "a"))


def budget(each_bytes: int = 8 << 20, total_bytes: int = 16 << 20) -> UploadBudget:
    return UploadBudget(each_bytes=each_bytes, total_bytes=total_bytes)


async def whole(held: HeldUpload) -> bytes:
    rest = b"" if held.rest is None else b"".join([piece async for piece in held.rest])
    return held.content + rest


def open_files(folder: Path) -> list[str]:
    """Of this process, in `folder`; with a name or without."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return [each for each in found if each.startswith(str(folder))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uploads lie during a test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_a_small_one_touches_no_disk(folder: Path) -> None:
    """Read, understood, and there in one piece."""
    with budget().holding() as held:
        await held.read(SCOPE, receiving(*cut(SMALL, [10, 50])))
        assert (held.asked().model, held.size_bytes) == ("a", len(SMALL))
        assert (held.content, held.rest) == (SMALL, None)
        assert open_files(folder) == []


async def test_a_large_one_is_a_file_without_a_name(folder: Path) -> None:
    """It can be read more than once, as a second attempt needs; it is gone when it is let go."""
    counted = budget()
    with counted.holding() as held:
        await held.read(SCOPE, receiving(*cut(LARGE, range(0, len(LARGE), 65_536))))
        assert (held.asked().model, held.size_bytes, held.content) == ("a", len(LARGE), b"")
        assert len(open_files(folder)) == 1
        assert not any(each.is_file() for each in folder.glob("*"))  # noqa: ASYNC240
        assert await whole(held) == LARGE
        held.answered()
        assert await whole(held) == LARGE
        assert counted.held_bytes == len(LARGE)
    assert open_files(folder) == []
    assert counted.held_bytes == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, len(LARGE)), max_size=20))
async def test_cut_anywhere(places: list[int]) -> None:
    """The very bytes come out, in the order in which they came."""
    with budget().holding() as held:
        await held.read(SCOPE, receiving(*cut(LARGE, places)))
        assert await whole(held) == LARGE


async def test_limits_are_counted_while_reading(folder: Path) -> None:
    """One by one 413, all together 429; the message names the setting; nothing stays behind."""
    declared = {"headers": [*HEADERS, (b"content-length", b"999999999")]}
    with budget().holding() as held, pytest.raises(BodyTooLarge, match="max_upload_bytes"):
        await held.read(declared, receiving())
    counted = budget(each_bytes=2 * PIECE_BYTES)
    with counted.holding() as held, pytest.raises(BodyTooLarge):
        await held.read(SCOPE, receiving(*cut(LARGE, range(0, len(LARGE), 65_536))))
    assert (counted.held_bytes, open_files(folder)) == (0, [])
    counted = budget(total_bytes=len(LARGE) + 10)
    with counted.holding() as first:
        await first.read(SCOPE, receiving(LARGE))
        with counted.holding() as second, pytest.raises(Overloaded, match="max_waiting_upload_bytes"):
            await second.read(SCOPE, receiving(SMALL))


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((LARGE[: 2 * PIECE_BYTES], None), ClientLeft),
        ((LARGE[: 2 * PIECE_BYTES], b"", LARGE[-500:-30]), InvalidRequest),
        ((form(part("model", "a"), part("model", "b"))[:-20], LARGE), InvalidRequest),
    ],
)
async def test_what_does_not_end_well_leaves_nothing(
    folder: Path, pieces: tuple[bytes | None, ...], error: type[Exception]
) -> None:
    """A client that leaves in the middle, and forms that will not do."""
    counted = budget()
    with pytest.raises(error), counted.holding() as held:  # noqa: PT012 - either step may be the one to tell
        await held.read(SCOPE, receiving(*pieces))
        held.asked()
    assert (counted.held_bytes, open_files(folder)) == (0, [])


async def test_no_place_on_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told which folder has none."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "gone"))
    with budget().holding() as held, pytest.raises(Unavailable, match="gone: No such file"):
        await held.read(SCOPE, receiving(LARGE))


async def test_a_disk_that_fills(folder: Path) -> None:
    """What it did not take is tried once more when the file is closed, which must not hide the reason."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_BYTES + 100, before[1]))
    try:
        with pytest.raises(Unavailable, match=str(folder)), budget().holding() as held:
            await held.read(SCOPE, receiving(LARGE[: PIECE_BYTES + 1], LARGE[PIECE_BYTES + 1 :]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert open_files(folder) == []


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not held: the buffer never outgrows one piece and what came last."""
    spool, seen = Spool(), []
    monkeypatch.setattr(upload_module.Spool, "_write", _recording(seen))
    for _ in range(100):
        await spool.add(b"x" * 65_536)
    await spool.finish()
    spool.close()
    assert max(seen) < PIECE_BYTES + 65_536
    assert len(seen) > 20


def _recording(seen: list[int]) -> Any:
    write = Spool._write

    def recorded(self: Spool) -> None:
        seen.append(len(self._few))
        write(self)

    return recorded
