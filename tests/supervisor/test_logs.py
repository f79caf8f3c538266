"""Log lines: one a line, in both formats."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from local_llm.logs import HumanFormatter, JsonFormatter


def record(message: str, fields: Any = None, *, failed: bool = False) -> logging.LogRecord:
    info: Any = None
    if failed:
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("local_llm.x", logging.INFO, "f", 1, message, (), info)
    made.fields = fields
    return made


def test_a_json_line_is_one_object() -> None:
    """Fields stand beside the message; a traceback does not break the line."""
    line = JsonFormatter().format(record("done\nnow", {"model": "a/b", "wait_seconds": 0.5}, failed=True))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["message"], entry["model"], entry["wait_seconds"]) == ("done\nnow", "a/b", 0.5)
    assert "ValueError" in entry["exception"]


def test_a_human_line_is_one_line() -> None:
    """A worker's text cannot forge a line of ours."""
    line = HumanFormatter().format(record("a\r\nb", {"model": "m\nfake", "none": None}, failed=True))
    assert len(line.splitlines()) == 1
    assert "model=m\\nfake" in line
    assert "none" not in line


def test_a_human_line_steers_no_terminal() -> None:
    """Escape sequences in a client's model name are shown, not obeyed; letters of all languages stay."""
    line = HumanFormatter().format(record("a\x1b[2J\x07\x9b2J\u2028b\x85c\td", {"model": "größe-模型"}))
    assert line.isprintable() or line.replace("\t", "").isprintable()
    assert len(line.splitlines()) == 1
    assert "\\x1b[2J" in line
    assert "größe-模型" in line
