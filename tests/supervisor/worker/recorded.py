"""The logs of real engines that lie beside the tests."""

from __future__ import annotations

from pathlib import Path

LOGS = Path(__file__).with_name("logs")


def recorded(name: str) -> list[str]:
    """The lines of one log, without its head, which says where it comes from."""
    lines = (LOGS / f"{name}.log").read_text().splitlines()
    return [line for line in lines if not line.startswith("# ")]
