"""The figures of a run, for people."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.chaos.program import Weight
from benchmarks.chaos.storm import Figures

MOST_SHOWN = 40
MOST_GROWTH_BYTES = 8 << 20
"""Between two calms. Python's allocator keeps what a storm needed, so the first calm comes after one."""

MOST_NEW_DESCRIPTORS = 2


def violations(figures: Figures, least_switches: float) -> list[str]:
    """All that must not be, the run's own and what its figures tell.

    Args:
        figures: of the run.
        least_switches: that it must have made to count.
    """
    found = [*figures.violations, *(f"left behind: {each}" for each in figures.leftovers)]
    if figures.switches < least_switches:
        found.append(f"only {figures.switches} switches, {least_switches:.0f} are wanted")
    if len(figures.calms) < 2:
        return [*found, "there are not two calms to compare"]
    first, last = figures.calms[0], figures.calms[-1]
    if last.descriptors > first.descriptors + MOST_NEW_DESCRIPTORS:
        found.append(f"{last.descriptors} file descriptors, there were {first.descriptors}")
    if last.rss_bytes > first.rss_bytes + MOST_GROWTH_BYTES:
        found.append(f"the supervisor grew from {_mb(first.rss_bytes)} to {_mb(last.rss_bytes)}")
    return found


def table(figures: Figures, wrong: Sequence[str]) -> str:
    """The figures, and the first of what is wrong."""
    lines = [f"seconds               {figures.seconds:8.0f}"]
    lines.append(f"switches              {figures.switches:8}   ({figures.loads} workers started)")
    lines += _counted("requests", figures.outcomes)
    lines += _counted("faults", figures.faults)
    wait, whose = figures.longest_wait
    lines.append(f"longest wait          {wait:8.1f}   s to the first byte of a full answer ({whose})")
    lines += _weights(figures)
    lines.append(f"left behind           {len(figures.leftovers):8}")
    lines.append(f"violations            {len(wrong):8}")
    lines += [f"  ! {each}" for each in wrong[:MOST_SHOWN]]
    if len(wrong) > MOST_SHOWN:
        lines.append(f"  ! and {len(wrong) - MOST_SHOWN} more")
    return "\n".join(lines)


def progress(figures: Figures, seconds: float, switches: int) -> str:
    """One line of how it goes."""
    requests, complete = figures.outcomes.total(), figures.outcomes["complete"]
    return (
        f"{seconds:5.0f} s: {requests} requests, {complete} complete, {switches} switches, "
        f"{figures.faults.total()} faults, {len(figures.violations)} violations"
    )


def slope_bytes_per_minute(weights: Sequence[Weight]) -> float:
    """Of the straight line through the second half of what was weighed; NaN if that is too little."""
    half = weights[len(weights) // 2 :]
    if len(half) < 3:
        return math.nan
    return (
        60 * statistics.linear_regression([each.at for each in half], [each.rss_bytes for each in half]).slope
    )


def _counted(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield f"{title:20}  {sum(counts.values()):8}"
    for name, count in sorted(counts.items(), key=lambda each: -each[1]):
        yield f"  {name:38} {count:6}"


def _weights(figures: Figures) -> Iterator[str]:
    if not figures.calms:
        return
    first, last = figures.calms[0], figures.calms[-1]
    most = max((each.rss_bytes for each in figures.storm), default=0)
    slope = slope_bytes_per_minute(figures.storm)
    growth = "" if math.isnan(slope) else f", {slope / 1e6:+.2f} MB a minute in its second half"
    yield (
        f"supervisor's memory   {_mb(first.rss_bytes)} in the first calm, {_mb(last.rss_bytes)} in the last, "
        f"{_mb(most)} at most between{growth}"
    )
    yield f"file descriptors      {first.descriptors} in the first calm, {last.descriptors} in the last"
    yield f"threads               {first.threads} in the first calm, {last.threads} in the last"


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
