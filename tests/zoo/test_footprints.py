"""What weights, caches and quantization of the specimens come to, beside published sizes and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from local_llm.catalog.card import ModelCard
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.footprint.footprint import Footprint, footprint_of
from local_llm.settings import Settings
from tests.zoo.broken import HEADERS
from tests.zoo.collection import SERVED
from tests.zoo.conftest import Outcome, card_of, id_of
from tests.zoo.specimen import Specimen

WEIGHED = tuple(each for each in SERVED if each.expected.weights_bytes is not None)
CACHED = tuple(each for each in SERVED if each.expected.kv_bytes_per_token is not None)
LEFT_VLLM = {"bitsandbytes"}
"""No longer among the `QUANTIZATION_METHODS` of vLLM 0.32."""
QUANTIZED = tuple(each for each in SERVED if each.expected.quantization is not None)


def _footprint(zoo: Mapping[str, Outcome], specimen: Specimen) -> Footprint:
    return footprint_of(card_of(zoo, specimen), Settings(), on_gpu=True)


@pytest.mark.parametrize("specimen", WEIGHED, ids=id_of)
def test_weights(zoo: Mapping[str, Outcome], specimen: Specimen) -> None:
    """The bytes of the published model, within two percent, tied weights once."""
    weights = _footprint(zoo, specimen).weights
    assert weights.exact
    assert weights.loaded_bytes == pytest.approx(specimen.expected.weights_bytes, rel=0.02)


@pytest.mark.parametrize("specimen", CACHED, ids=id_of)
def test_cache(zoo: Mapping[str, Outcome], specimen: Specimen) -> None:
    """The bytes of a token of context, in the layers whose cache grows."""
    footprint = _footprint(zoo, specimen)
    assert footprint.kv_bytes_per_token == specimen.expected.kv_bytes_per_token, footprint.notes


@pytest.mark.parametrize("specimen", QUANTIZED, ids=id_of)
def test_quantization(zoo: Mapping[str, Outcome], specimen: Specimen) -> None:
    """The method, by a name that people know, and what it needs of a GPU."""
    quantization = _footprint(zoo, specimen).quantization
    assert quantization is not None
    assert specimen.expected.quantization is not None
    assert specimen.expected.quantization.lower() in quantization.title.lower()
    in_vllm = specimen.expected.quantization not in LEFT_VLLM
    assert quantization.supported == in_vllm
    assert (quantization.least_capability is not None) == in_vllm


@pytest.mark.parametrize("damage", HEADERS)
@pytest.mark.parametrize("specimen", [SERVED[0], SERVED[1], *QUANTIZED[:1]], ids=id_of)
def test_damaged_weights(specimen: Specimen, damage: str, tmp_path: Path) -> None:
    """Weights whose header cannot be read are estimated by their size, and that is said."""
    files = HEADERS[damage](specimen.files)
    assert files is not None
    folder = Specimen(specimen.id, files, specimen.expected).write(tmp_path)
    card = examine_location(Location(specimen.id, str(folder), (str(folder),)), Settings()).outcome
    assert isinstance(card, ModelCard)
    footprint = footprint_of(card, Settings(), on_gpu=True)
    assert damage == "cut" or not footprint.weights.exact
    assert footprint.weights.notes or footprint.notes
