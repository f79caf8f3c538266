"""Imports what may not be there."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path


def import_all(names: Iterable[str]) -> Iterator[str]:
    """Imports the modules in their order; yields those that cannot be imported.

    A module that is missing only costs the worker its import: another version of the engine may have
    moved it. One that breaks would break the worker too, which says so better.
    """
    for name in names:
        if not _imported(name):
            yield name


def _imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever a module of others may raise
        return False
    return True


def folder_of(package: str) -> Path | None:
    """Where a package is installed, without importing it; None if it is not."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
