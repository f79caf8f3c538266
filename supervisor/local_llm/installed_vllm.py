"""What the installed vLLM registers: architectures and parsers, read from its sources as text.

Importing vLLM takes ten seconds and half a gigabyte; the few source files that hold its registries take
some milliseconds. They are read as data: no line of them is run.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

_ASK_SECONDS = 20.0
_LARGEST_SOURCE_BYTES = 4 << 20

_MODELS = "model_executor/models/registry.py"
# The second place is where vLLM had them before 0.13.
_TOOL_PARSERS = ("tool_parsers/__init__.py", "entrypoints/openai/tool_parsers/__init__.py")
_REASONING_PARSERS = ("reasoning/__init__.py",)

# Parsers that are registered and end the start with an ImportError where a package of no dependency is
# missing (0.32 parser/cohere_command.py).
_NEEDED_PACKAGES = {"cohere_command3": "cohere_melody", "cohere_command4": "cohere_melody"}

# Dictionaries as ruff lays them out: the name and the closing brace at the margin, a key after four blanks.
_DICTIONARY = r"^{name}\b[^=\n]*= \{{\n(?P<body>.*?)^\}}"
_KEY = re.compile(r'^ {4}"([^"\n]+)"\s*:', re.MULTILINE)
_SPREAD = re.compile(r"^ {4}\*\*(_\w+),", re.MULTILINE)
_VERSION = re.compile(r"^__version__ = (?:version = )?'([^']+)'", re.MULTILINE)

# Finds the package without importing it.
_LOCATE = (
    "import importlib.util as u, json; s = u.find_spec('vllm'); "
    "print(json.dumps(list(s.submodule_search_locations or []) if s else []))"
)


@dataclass(frozen=True, slots=True)
class InstalledVllm:
    """What one installation of vLLM has.

    Attributes:
        version: such as ``0.32.0``; "unknown" where its package does not say.
        architectures: that it runs, those that it runs through transformers' modelling code included.
        tool_parsers: names that `--tool-call-parser` takes; None if that was not understood.
        reasoning_parsers: names that `--reasoning-parser` takes; None if that was not understood.
        lacking: of these, what cannot be imported, with the package that is missing for it.
    """

    version: str
    architectures: frozenset[str]
    tool_parsers: frozenset[str] | None
    reasoning_parsers: frozenset[str] | None
    lacking: Mapping[str, str] = field(default_factory=dict)


def installed_vllm(python: Path | None = None) -> InstalledVllm | None:
    """What the vLLM of a Python has; some milliseconds at first, then remembered until the process ends.

    For another Python than this process's, a short subprocess is asked where the package lies: from the
    event loop, call it in a thread.

    Args:
        python: the interpreter; None means this process's own.

    Returns:
        None if there is no vLLM, or its sources are not laid out as expected: then nothing is known.
    """
    return _read_once(None if python is None or str(python) == sys.executable else str(python.expanduser()))


@functools.lru_cache(maxsize=32)
def _read_once(python: str | None) -> InstalledVllm | None:
    folders = _own_folders() if python is None else _ask(python)
    for folder in folders:
        found = read_package(Path(folder))
        if found is not None:
            return found
    log.debug("no vLLM that could be read in %s", python or sys.executable)
    return None


def read_package(folder: Path) -> InstalledVllm | None:
    """What the sources in a `vllm` package's folder say; None if its models are not to be found there."""
    architectures = _registered_models(_text(folder / _MODELS))
    if not architectures:
        return None
    version = _VERSION.search(_text(folder / "_version.py"))
    return InstalledVllm(
        version=version[1] if version else "unknown",
        architectures=architectures,
        tool_parsers=_registered_parsers(folder, _TOOL_PARSERS, "_TOOL_PARSERS_TO_REGISTER"),
        reasoning_parsers=_registered_parsers(folder, _REASONING_PARSERS, "_REASONING_PARSERS_TO_REGISTER"),
        lacking={
            name: each for name, each in _NEEDED_PACKAGES.items() if not (folder.parent / each).exists()
        },
    )


def _registered_models(source: str) -> frozenset[str]:
    """The keys of all dictionaries that `_VLLM_MODELS` is put together from."""
    together = _dictionary(source, "_VLLM_MODELS")
    parts = (_dictionary(source, name) for name in _SPREAD.findall(together))
    return frozenset(key for part in (together, *parts) for key in _KEY.findall(part))


def _registered_parsers(folder: Path, places: Iterable[str], name: str) -> frozenset[str] | None:
    for place in places:
        names = _KEY.findall(_dictionary(_text(folder / place), name))
        if names:
            return frozenset(names)
    log.debug("%s was not found in %s", name, folder)
    return None


def _dictionary(source: str, name: str) -> str:
    """What stands between the braces of a dictionary at the top level; empty if there is none."""
    found = re.search(_DICTIONARY.format(name=re.escape(name)), source, re.MULTILINE | re.DOTALL)
    return found["body"] if found else ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_SOURCE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _own_folders() -> list[str]:
    try:
        spec = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):  # ValueError: a stand-in among the loaded modules, without a spec
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _ask(python: str) -> list[str]:
    """Where another Python finds vLLM; nothing if it cannot be asked (a launch with it will say why)."""
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # as for workers: not the working directory's
    try:
        answer = subprocess.run(
            [python, "-c", _LOCATE],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_SECONDS,
            check=True,
        )
        folders = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.debug("%s could not be asked for vLLM: %s", python, error)
        return []
    return [each for each in folders if isinstance(each, str)] if isinstance(folders, list) else []
