"""The whole zoo in one models folder, and what the catalogue says of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import pytest

from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.settings import Settings
from tests.zoo.collection import SPECIMENS
from tests.zoo.specimen import Specimen

Outcome: TypeAlias = ModelCard | BrokenModel

MOST_BYTES = 256 << 20


@pytest.fixture(scope="package")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """Id -> what the catalogue says."""
    root = tmp_path_factory.mktemp("zoo")
    for specimen in SPECIMENS:
        specimen.write(root)
    snapshot = Catalog(Settings(models_dir=root)).snapshot()
    found: list[Outcome] = [*snapshot.models, *snapshot.broken]
    return {each.id: each for each in found}


def card_of(zoo: Mapping[str, Outcome], specimen: Specimen) -> ModelCard:
    """The card of a specimen that is served."""
    card = zoo[specimen.id]
    assert isinstance(card, ModelCard), card
    return card


def id_of(specimen: Specimen) -> str:
    """For the names of tests."""
    return specimen.id


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The test's own data included; tracing takes several times as long, so not every test is traced."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES
