"""`make test-zoo`: starts every language model of the zoo that vLLM's CPU build can start, at a small size.

Exits 1 if one does not do what `language.txt` says of it. Of others of the table it tells the reason.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.zoo.language import ROWS
from tests.zoo.specimen import Specimen
from tests.zoo.starting import NotStarted, Starter, starter

STARTS = "yes"
NOT_TRIED = "-"


def main() -> None:
    """Starts them, one line each, and counts."""
    parser = argparse.ArgumentParser(prog="tests.zoo.start", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of ids; without any, all that start")
    parser.add_argument("--refused", action="store_true", help="try those that are said not to start too")
    options = parser.parse_args()
    chosen = [each for each in ROWS if _is_chosen(each, options.names, refused=options.refused)]
    with TemporaryDirectory() as folder, starter(chosen, Path(folder)) as made:
        wrong = [each.id for each in chosen if not _as_said(made, each)]
    for each in ROWS:
        if each not in chosen and each.starts not in (STARTS, NOT_TRIED):
            _tell_of(each, "not tried", each.starts)
    _tell(f"{len(chosen) - len(wrong)} of {len(chosen)} did as language.txt says")
    sys.exit(1 if wrong else 0)


def _is_chosen(specimen: Specimen, names: Sequence[str], *, refused: bool) -> bool:
    if names and not any(name in specimen.id for name in names):
        return False
    return specimen.starts == STARTS or (refused and specimen.starts != NOT_TRIED)


def _as_said(made: Starter, specimen: Specimen) -> bool:
    """Starts one and tells of it."""
    began = time.perf_counter()
    try:
        answer = made.ask(specimen)
        started, said = True, f"answered {answer.text!r}"
        if answer.tool_status is not None:
            said += f", with tools {answer.tool_status}"
            started = answer.tool_status == 200
    except NotStarted as error:
        started, said = False, str(error)
    seconds = time.perf_counter() - began
    _tell_of(specimen, "started" if started else "refused", f"{seconds:5.1f} s  {said}")
    return started == (specimen.starts == STARTS)


def _tell_of(specimen: Specimen, done: str, more: str) -> None:
    _tell(f"{specimen.family:20} {specimen.id:44} {done:10} {more}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
