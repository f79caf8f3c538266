"""`python -m tests.zoo --into DIR`: writes the zoo."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.zoo.collection import BROKEN, SPECIMENS, write_many


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(prog="tests.zoo", description="Model folders without a download.")
    parser.add_argument("--into", type=Path, required=True, help="the models folder; made if it is missing")
    parser.add_argument("--count", type=int, help="so many folders, specimens in turn under other names")
    options = parser.parse_args()
    if options.count is not None:
        write_many(options.into, options.count)
        return
    for specimen in (*SPECIMENS, *BROKEN):
        specimen.write(options.into)
    sys.stdout.write(f"{len(SPECIMENS)} specimens and {len(BROKEN)} broken ones are in {options.into}\n")


if __name__ == "__main__":
    main()
