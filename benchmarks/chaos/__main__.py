"""The command line."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import anyio

from benchmarks.chaos import storm
from benchmarks.chaos.program import Program
from benchmarks.chaos.report import progress, table, violations
from benchmarks.chaos.scenario import FAKE, REAL
from benchmarks.chaos.storm import Figures


def main() -> None:
    """Runs, prints the figures, and exits with 1 if something does not hold."""
    options = _parser().parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"chaos for {options.seconds:g} s with seed {seed}, {options.engines} engines", flush=True)
    began = time.monotonic()
    at_terminal = sys.stderr.isatty()

    def show(figures: Figures, program: Program) -> None:
        line = progress(figures, time.monotonic() - began, program.switches)
        print(
            f"\r\x1b[K{line}" if at_terminal else line,
            end="" if at_terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    async def whole() -> Figures:
        return await storm.run(
            seconds=options.seconds,
            seed=seed,
            real_models=options.models if options.engines == "real" else None,
            watch=show,
            watch_every_seconds=5 if at_terminal else 30,
        )

    figures = anyio.run(whole)
    scenario = REAL if options.engines == "real" else FAKE
    wrong = violations(figures, scenario.least_switches * options.seconds / 60)
    print(("\r\x1b[K" if at_terminal else "") + table(figures, wrong))
    if wrong:
        again = f"python -m benchmarks.chaos --seconds {options.seconds:g} --replay {seed}"
        print(f"\nThe same decisions again: {again} --engines {options.engines}")
    sys.exit(1 if wrong else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of storm; the calms come on top")
    parser.add_argument(
        "--seed", "--replay", type=int, help="of all decisions; none: a new one, which is printed"
    )
    parser.add_argument("--engines", choices=["fake", "real"], default="fake")
    parser.add_argument("--models", type=Path, default=Path("models"), help="for the real engines")
    return parser


if __name__ == "__main__":
    main()
