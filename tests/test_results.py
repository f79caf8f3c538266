"""The file of measured figures: each section is renewed alone."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Row, bars, write


def test_a_section_is_renewed_and_the_others_stay(tmp_path: Path) -> None:
    """In the file's own order, whichever is written first; a plot and notes come along."""
    path = tmp_path / "RESULTS.md"
    write("proxy", [Row("requests/s", "nginx", "≥ 0.5", "0.4", reached=False, note="Python")], path=path)
    write("switch", [Row("switch", "cold", "", "7 times", reached=True)], ["why"], path=path)
    plot = bars({"a": 1, "long": 1234.5}, "s")
    write("proxy", [Row("chunks/s", "nginx", "", "1.0")], plot=plot, path=path)
    text = path.read_text()
    assert text.count("## The data path") == 1
    assert text.index("## Switching models") < text.index("## The data path")
    assert "| switch | cold |  | 7 times | yes |  |" in text
    assert "| chunks/s | nginx |  | 1.0 |  |  |" in text
    assert "requests/s" not in text
    assert "long ██" in text
    assert "1,234 s" in text


def test_what_was_missed_stands_out(tmp_path: Path) -> None:
    """A `no` in bold, beside what limits it."""
    path = tmp_path / "RESULTS.md"
    write("embed", [Row("f", "b", "r", "m", reached=False, note="n")], path=path)
    assert "| f | b | r | m | **no** | n |" in path.read_text()
