"""Over how many GPUs a vLLM worker is spread where nobody says."""

from __future__ import annotations

from collections.abc import Sequence

from local_llm.catalog.card import ModelCard
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.placement import Placement, place
from local_llm.gpu import Device
from local_llm.settings import Settings


def tensor_parallel_size(card: ModelCard, settings: Settings, devices: Sequence[Device]) -> int:
    """The smallest number that fits in what is free now, else in the devices' whole memory; else 1.

    For a thread: with more than one device it reads the headers of the model's files.

    Args:
        card: the model.
        settings: all of them.
        devices: that the worker will see.
    """
    if len(devices) < 2:
        return 1
    footprint = footprint_of(card, settings, on_gpu=True)
    if not footprint.weights.exact or not footprint.shape.heads:
        return 1
    for free in (True, False):
        outcome = place(footprint, card, devices, settings, free=free)
        if isinstance(outcome, Placement):
            return outcome.tensor_parallel
    return 1
