"""Whom the kernel kills when memory runs out: the template before the worker, and that before the rest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_FILE = Path("/proc/self/oom_score_adj")
_TEMPLATES = 600


def die_before_all_others() -> int | None:
    """For the template, which is only a cache; returns what it was before. None: it cannot be changed."""
    with suppress(OSError, ValueError):
        before = int(_FILE.read_text())
        if before < _TEMPLATES:
            _FILE.write_text(str(_TEMPLATES))
        return before
    return None


def be_as_before(adjustment: int | None) -> None:
    """For a forked nanny. Down to what a privileged process has set last, no privilege is needed."""
    if adjustment is not None:
        with suppress(OSError):
            _FILE.write_text(str(adjustment))
