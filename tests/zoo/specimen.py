"""What a specimen of the zoo is, and how it becomes a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sparse:
    """A file of which only the start is written.

    Attributes:
        start: its first bytes.
        size_bytes: its whole length; the rest are zeros that take no place on the disk.
    """

    start: bytes
    size_bytes: int


Content = object
"""Of a file: bytes, text or a Sparse as they are, anything else as JSON."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the catalogue should find out, by the sources.

    Attributes:
        kind: what the model is for; None where it cannot be served.
        engine: what runs it.
        tool_call_parser: vLLM's names of it, any of which is right; None: no flag.
        reasoning_parser: the same.
        weights_bytes: of the parameters that an engine loads, tied ones once.
        kv_bytes_per_token: of a cache in bfloat16, of the layers whose cache grows with the text.
        quantization: vLLM's name of the method.
        reason: a part of the reason why it cannot be served, in lower case.
    """

    kind: str | None = "chat"
    engine: str = "vllm"
    tool_call_parser: tuple[str | None, ...] = (None,)
    reasoning_parser: tuple[str | None, ...] = (None,)
    weights_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    quantization: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Specimen:
    """One model folder.

    Attributes:
        id: ``org/name``, below the models folder.
        files: name -> content; a name may contain folders.
        expected: what the catalogue should say of it.
        family: that it belongs to, for people.
        starts: "yes" if vLLM's CPU build starts it at a small size, else why it does not.
    """

    id: str
    files: Mapping[str, Content]
    expected: Expected
    family: str = ""
    starts: str = "-"

    def write(self, root: Path, name: str | None = None) -> Path:
        """Writes the folder below `root`, under its id or another name; returns it."""
        folder = root / (name or self.id)
        for relative, content in self.files.items():
            path = folder / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        return folder


def config(name: str) -> dict[str, Any]:
    """config.json of a model in ``configs/``."""
    said: dict[str, Any] = json.loads((HERE / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    return said


def template(name: str) -> str:
    """A chat template in ``templates/``."""
    return (HERE / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _write(path: Path, content: Content) -> None:
    if isinstance(content, Sparse):
        with path.open("wb") as file:
            file.write(content.start)
            file.truncate(content.size_bytes)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
