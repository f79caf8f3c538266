"""The zoo's config.json files beside the configuration classes of the installed transformers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.zoo.conftest import id_of
from tests.zoo.language import ROWS
from tests.zoo.smaller import smaller
from tests.zoo.specimen import Specimen

pytestmark = pytest.mark.engines

# Their class is code that comes with the model, or vLLM's own.
_ELSEWHERE = {"bailing_hybrid", "internlm2", "interns1", "kimi_k2", "kimi_k3", "mimo_v2"}


@pytest.mark.parametrize("specimen", ROWS, ids=id_of)
def test_transformers_reads_it(specimen: Specimen) -> None:
    """At the published sizes and at small ones; or transformers does not know the type at all."""
    from transformers import CONFIG_MAPPING

    said: Any = specimen.files["config.json"]
    if said["model_type"] in _ELSEWHERE:
        assert said["model_type"] not in CONFIG_MAPPING
        return
    for each in (said, smaller(said)):
        read = CONFIG_MAPPING[said["model_type"]].from_dict(dict(each))
        assert read.architectures == said["architectures"]
