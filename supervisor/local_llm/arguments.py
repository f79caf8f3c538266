"""What the user's arguments for an engine say, in every spelling that it takes.

Reads one file: that of `--config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml


def is_set(args: Iterable[str], flag: str) -> bool:
    """Whether the user's arguments give `flag`, however it is spelled.

    ``--flag value``, ``--flag=value``, with underscores for dashes (as vLLM allows), and ``--no-flag``.
    """
    return any(_spelled(arg) in (flag, "--no-" + flag.removeprefix("--")) for arg in args)


def is_off(args: Sequence[str], flag: str) -> bool:
    """Whether the last of the arguments that gives `flag` is its ``--no-flag``."""
    last = next((arg for arg in reversed(args) if is_set([arg], flag)), "")
    return last.startswith("--no")


def _spelled(arg: str) -> str:
    return arg.partition("=")[0].replace("_", "-") if arg.startswith("-") else arg


def in_config_file(args: Sequence[str]) -> list[str]:
    """The flags and values of the YAML file that `--config` names: vLLM lets the command line win over it.

    What cannot be read is left to vLLM's own message.
    """
    path = value_of(args, "--config")
    if path is None:
        return []
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []
    pairs = content.items() if isinstance(content, dict) else ()
    return [part for key, value in pairs if value is not False for part in (f"--{key}", str(value))]


def number_of(args: Sequence[str], *flags: str) -> int:
    """The positive number that the last of `flags` gives; 1 if none does."""
    value = value_of(args, *flags)
    return int(value) if value is not None and value.isdecimal() and int(value) > 0 else 1


def value_of(args: Sequence[str], *flags: str) -> str | None:
    """What the last of the arguments that is one of `flags` gives, since that one wins; None if none is."""
    value = None
    for position, arg in enumerate(args):
        if _spelled(arg) in flags:
            following = args[position + 1] if position + 1 < len(args) else None
            value = arg.partition("=")[2] or following
    return value
