"""What every damaged folder is judged by: a card or a reason, soon and in little memory, footprint too."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.placement import place
from local_llm.gpu import Device
from local_llm.settings import Settings
from tests.zoo.collection import SERVED
from tests.zoo.specimen import Content, Expected, Specimen

MOST_SECONDS = 5.0
"""For one folder, on a busy machine; a folder that is right takes a few milliseconds."""
GPUS = (
    Device(0, "GPU-0", "one", 24 << 30, 20 << 30, (8, 6)),
    Device(1, "GPU-1", "two", 24 << 30, 20 << 30, (8, 6)),
)
BY_ID = {each.id: each for each in SERVED}
BASE = Specimen(
    "meta-llama/Llama-3.1-8B-Instruct", BY_ID["NousResearch/Hermes-3-Llama-3.1-8B"].files, Expected()
)

NUMBERS = (
    st.integers(-3, 3)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**400, True, False])
    | st.floats()
)
VALUES = st.recursive(
    st.none() | NUMBERS | st.text(max_size=8) | st.sampled_from(["", "auto", "\0", "../..", "x" * 1500]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@contextmanager
def bounded() -> Iterator[None]:
    """Within, no more than so much time may go."""
    began = time.perf_counter()
    yield
    assert time.perf_counter() - began < MOST_SECONDS


def judge(files: Mapping[str, Content]) -> None:
    """A reason, or a card of which the footprint and the fit on two GPUs and on none can be told.

    Beside an adapter lies a model that it may name as its base.
    """
    with tempfile.TemporaryDirectory() as root:
        if "adapter_config.json" in files:
            BASE.write(Path(root))
        Specimen("zoo/fuzzed", files, Expected()).write(Path(root))
        with bounded():
            snapshot = Catalog(Settings(models_dir=Path(root))).snapshot()
            everything: list[ModelCard | BrokenModel] = [*snapshot.models, *snapshot.broken]
            [outcome] = [each for each in everything if each.id == "zoo/fuzzed"]
            if isinstance(outcome, BrokenModel):
                assert outcome.reason
                assert "examining its folder failed" not in outcome.reason, outcome.reason
                assert outcome.reason.isprintable()
            else:
                judge_footprint(outcome)


def judge_footprint(card: ModelCard) -> None:
    """What is told of it is a number or nothing, and people can read it."""
    assert all(each.isprintable() for each in card.evidence)
    for devices in ((), GPUS):
        footprint = footprint_of(card, Settings(), on_gpu=bool(devices))
        assert footprint.weights.file_bytes >= 0
        assert footprint.weights.loaded_bytes >= 0
        assert footprint.context_length is None or footprint.context_length > 0
        assert footprint.kv_bytes_per_token is None or footprint.kv_bytes_per_token >= 0
        assert all(note.isprintable() for note in footprint.notes)
        place(footprint, card, devices, Settings())
