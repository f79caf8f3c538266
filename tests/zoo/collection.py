"""All specimens."""

from __future__ import annotations

from pathlib import Path

from tests.zoo.broken import variants
from tests.zoo.formats import FORMATS
from tests.zoo.language import LANGUAGE
from tests.zoo.pooling import POOLING
from tests.zoo.specimen import Specimen

SPECIMENS: tuple[Specimen, ...] = (*LANGUAGE, *POOLING, *FORMATS)
SERVED: tuple[Specimen, ...] = tuple(each for each in SPECIMENS if each.expected.kind is not None)
BROKEN: tuple[Specimen, ...] = tuple(variant for each in SERVED for variant in variants(each))
_ALONE = tuple(each for each in SERVED if "adapter_config.json" not in each.files)


def write_many(root: Path, count: int) -> None:
    """Writes `count` folders below `root`, specimens that are served, again and again: all but adapters."""
    for number in range(count):
        _ALONE[number % len(_ALONE)].write(root, f"org{number % 20}/model-{number}")
