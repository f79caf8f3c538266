"""Six representatives of the zoo on real vLLM, with the flags that the project chooses for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.zoo.conftest import id_of
from tests.zoo.language import ROWS
from tests.zoo.specimen import Specimen
from tests.zoo.starting import Starter, starter

pytestmark = pytest.mark.engines

_SIX = {
    "Qwen/Qwen3-8B",  # grouped heads, norms of heads, hermes and qwen3
    "Qwen/Qwen3-30B-A3B-Thinking-2507",  # a mixture of experts that always thinks
    "meta-llama/Llama-3.1-8B-Instruct",  # llama3_json
    "google/gemma-3-1b-it",  # sliding windows, no parser
    "microsoft/Phi-4-mini-instruct",  # one matrix for queries, keys and values; long rope; phi4_mini_json
    "ibm-granite/granite-3.3-8b-instruct",  # multipliers, granite twice
}
REPRESENTATIVES = [each for each in ROWS if each.id in _SIX]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """One template for all."""
    with starter(REPRESENTATIVES, tmp_path_factory.mktemp("zoo")) as made:
        yield made


@pytest.mark.parametrize("specimen", REPRESENTATIVES, ids=id_of)
def test_starts_and_answers(real: Starter, specimen: Specimen) -> None:
    """It comes up, chats, and takes a request with tools where its family has a format for them."""
    answer = real.ask(specimen)
    assert answer.text.isalpha()
    has_tools = specimen.expected.tool_call_parser != (None,)
    assert answer.tool_status == (200 if has_tools else None)
