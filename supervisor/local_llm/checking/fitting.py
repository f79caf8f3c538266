"""Whether a model fits this machine, judged as the server judges it before it stops another for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from local_llm.catalog.card import ModelCard
from local_llm.fit import misfit
from local_llm.footprint.footprint import Footprint, footprint_of
from local_llm.footprint.placement import Placement, Refusal, place
from local_llm.gpu import Device
from local_llm.model_gpus import visible_to
from local_llm.settings import Settings
from local_llm.worker.environment import inheritable


def fitting(
    card: ModelCard, settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> tuple[Footprint, Placement | Refusal]:
    """What a model needs, and where it goes. Reads the headers of its files.

    Args:
        card: the model; an adapter fits where its base does.
        settings: all of them.
        devices: every GPU there is.
        environment: what workers inherit.
    """
    runs_as = card.runs_as
    inherited = inheritable(environment)
    visible = visible_to(runs_as, devices, settings, inherited)
    footprint = footprint_of(runs_as, settings, on_gpu=bool(visible))
    reason = misfit(runs_as, settings, devices, inherited)
    if reason is not None:
        return footprint, Refusal(reason)
    placed = place(footprint, runs_as, visible, settings)
    if isinstance(placed, Refusal):
        note = f"by its files it {placed.reason} It is tried all the same, as the settings say"
        return footprint, Placement(tuple(visible), notes=(note,))
    return footprint, placed
