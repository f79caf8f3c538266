"""What the catalogue says of every specimen of the zoo, beside what the sources say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from local_llm.catalog.card import BrokenModel
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.settings import Settings
from tests.zoo.collection import BROKEN, SERVED, SPECIMENS
from tests.zoo.conftest import Outcome, card_of, id_of
from tests.zoo.specimen import Specimen


@pytest.mark.parametrize("specimen", SPECIMENS, ids=id_of)
def test_kind_and_engine(zoo: Mapping[str, Outcome], specimen: Specimen) -> None:
    """What it is for and what runs it, or why it cannot be served."""
    expected, found = specimen.expected, zoo[specimen.id]
    if expected.kind is None:
        assert isinstance(found, BrokenModel), found
        assert expected.reason is not None
        assert expected.reason in found.reason.lower()
    else:
        card = card_of(zoo, specimen)
        assert (card.kind.value, card.engine.value) == (expected.kind, expected.engine), card.evidence


@pytest.mark.parametrize("specimen", SERVED, ids=id_of)
def test_parsers(zoo: Mapping[str, Outcome], specimen: Specimen) -> None:
    """vLLM's parsers of tool calls and reasoning; none where nothing is certain."""
    family = card_of(zoo, specimen).family
    said = (family.tool_call_parser, family.reasoning_parser) if family else (None, None)
    assert said[0] in specimen.expected.tool_call_parser, family
    assert said[1] in specimen.expected.reasoning_parser, family


def _outcome(specimen: Specimen, root: Path) -> object:
    folder = specimen.write(root)
    return examine_location(Location(specimen.id, str(folder), (str(folder),)), Settings()).outcome


@pytest.mark.parametrize("title", sorted({each.id.partition("--")[2] for each in BROKEN}))
def test_broken(title: str, tmp_path: Path) -> None:
    """A damage, done to every specimen that it can be done to: never served, always for that reason."""
    for specimen in (each for each in BROKEN if each.id.endswith(f"--{title}")):
        found = _outcome(specimen, tmp_path)
        assert isinstance(found, BrokenModel), (specimen.id, found)
        assert specimen.expected.reason is not None
        assert specimen.expected.reason in found.reason.lower(), (specimen.id, found.reason)
