"""The supervisor's own weight: start, memory, and the scan of a large models folder.

python -m benchmarks.supervisor_figures
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.results import Row, write
from benchmarks.supervisor_start import measure
from local_llm.catalog.catalog import Catalog
from local_llm.settings import Settings
from tests.zoo.collection import write_many

STARTS = 15
SCANS = 7
MODELS = 1000
SETTLED_SECONDS = 2.5
"""The catalogue does not trust the stamps of files that changed less than two seconds before."""

METHOD = f"""\
Starts of `local-llm serve` on an empty folder, asked every two milliseconds; memory right after the first
answer. RSS counts pages shared with other processes in full, PSS in part. The {MODELS:,} folders are those
of the test zoo under other names, with files of published sizes, in the page cache and some seconds old
(younger ones are read again each time). Where other work kept the cores busy, the time of a core comes
nearer to what a quiet machine shows."""


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_start_rows(Path(folder)), *_scan_rows(Path(folder))]
    write("supervisor", rows, [METHOD])


def _start_rows(folder: Path) -> list[Row]:
    measure(folder)  # byte code is written, files come into the page cache
    seconds, core_seconds, rss_mb, pss_mb = zip(*(measure(folder) for _ in range(STARTS)), strict=True)
    memory = f"{statistics.median(rss_mb):.0f} MB RSS, {statistics.median(pss_mb):.0f} MB PSS"
    return [
        Row(
            "start to the first answer of `/health`",
            "",
            "under 0.6 s",
            f"{_in_words(seconds, 1, 's', 2)}; {statistics.median(core_seconds):.2f} s of a core's time",
            statistics.median(seconds) < 0.6,
        ),
        Row("memory", "", "under 80 MB", memory, statistics.median(rss_mb) < 80),
    ]


def _scan_rows(folder: Path) -> list[Row]:
    write_many(folder, MODELS)
    time.sleep(SETTLED_SECONDS)
    settings = Settings(models_dir=folder, state_dir=folder / "state")
    cold, unchanged = _Seconds([], []), _Seconds([], [])
    for _ in range(SCANS):
        catalog = Catalog(settings)
        cold.measure(catalog.snapshot)
        unchanged.measure(catalog.snapshot)
    if len(catalog.snapshot().models) != MODELS:
        raise AssertionError(f"{len(catalog.snapshot().models)} of {MODELS} models were found")
    what = f"scan of {MODELS:,} folders of the test zoo"
    return [
        Row(what, "", "under 0.5 s", cold.in_words(1, "s", 2), statistics.median(cold.wall) < 0.5),
        Row(
            f"{what}, unchanged",
            "",
            "under 20 ms",
            unchanged.in_words(1000, "ms", 1),
            statistics.median(unchanged.wall) < 0.02,
        ),
    ]


class _Seconds(NamedTuple):
    """Of several runs: by the clock, and of a core's time."""

    wall: list[float]
    core: list[float]

    def measure(self, do: Callable[[], object]) -> None:
        """Runs it once."""
        began, core_began = time.perf_counter(), time.process_time()
        do()
        self.wall.append(time.perf_counter() - began)
        self.core.append(time.process_time() - core_began)

    def in_words(self, factor: float, unit: str, digits: int) -> str:
        """Both."""
        core = f"{factor * statistics.median(self.core):.{digits}f} {unit} of a core's time"
        return f"{_in_words(self.wall, factor, unit, digits)}; {core}"


def _in_words(values: Sequence[float], factor: float, unit: str, digits: int) -> str:
    median, low, high = (factor * each(values) for each in (statistics.median, min, max))
    return f"{median:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f} over {len(values)})"


if __name__ == "__main__":
    main()
