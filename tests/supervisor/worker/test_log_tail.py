"""What is kept of a worker's log."""

from __future__ import annotations

import logging

import pytest

from local_llm.worker.log_tail import MAX_LINE_CHARACTERS, MAX_LINES, LogTail
from tests.supervisor.worker.stage import fake_identity


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\r\ntw", b"o"], ["one", "two"]),
        ([b"50%\r100%\rdone\n"], ["50%", "100%", "done"]),
        ([b"\n\n  \n"], []),
        ([b"\xff\xfe\n"], ["\ufffd\ufffd"]),
        ([b"gr\xc3", b"\xbcn\n"], ["grün"]),
        ([b"x" * 10_000_000, b"\n", b"end\n"], ["x" * MAX_LINE_CHARACTERS, "end"]),
    ],
)
def test_lines(chunks: list[bytes], lines: list[str]) -> None:
    """Chunks of any size become cut, non-empty lines."""
    read: list[str] = []
    tail = LogTail(fake_identity(), read.append)
    for chunk in chunks:
        tail.feed(chunk)
    assert tail.last(10) == lines
    assert read == [line for line in lines if chunks[-1].endswith(b"\n") or line != lines[-1]]


def test_only_the_last() -> None:
    """The ring forgets the oldest."""
    tail = LogTail(fake_identity(), lambda line: None)
    tail.feed(b"".join(b"%d\n" % number for number in range(10_000)))
    assert tail.last(2) == ["9998", "9999"]
    assert len(tail.last(10_000)) == MAX_LINES
    assert tail.last(0) == []


def test_events(caplog: pytest.LogCaptureFixture) -> None:
    """A line is logged as it is, and whose it is beside it."""
    caplog.set_level(logging.DEBUG, "local_llm.worker.log_tail")
    LogTail(fake_identity("w7", "org/b"), lambda line: None).feed(b"100% done\n")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["fields"]) == (
        "100% done",
        {"worker": "w7", "model": "org/b"},
    )
