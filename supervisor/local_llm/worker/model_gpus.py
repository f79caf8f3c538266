"""What `gpus` of a model's settings means: how many, or which. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from local_llm.errors import LoadFailed
from local_llm.gpu import Device
from local_llm.model_settings import ModelSettings


def count(model: ModelSettings) -> int | None:
    """How many GPUs a model spreads over; None: its settings do not say."""
    return len(model.gpus) if isinstance(model.gpus, tuple) else model.gpus


def environment(model: ModelSettings) -> dict[str, str]:
    """What a worker's environment says of GPUs: those of a list, by the numbers that nvidia-smi shows."""
    if not isinstance(model.gpus, tuple):
        return {}
    # CUDA's own order is by speed: on a machine with unlike GPUs its 0 is another one than nvidia-smi's.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, model.gpus))}


def refuse_missing(
    model_id: str, model: ModelSettings, devices: Sequence[Device], visible: Sequence[Device]
) -> None:
    """An engine that lacks a GPU fails late, and its message names no setting.

    Args:
        model_id: for the message.
        model: its settings.
        devices: all; none means that the CPU computes, and nothing is said.
        visible: of these, what its worker would see.

    Raises:
        LoadFailed: there are fewer than the settings want, or others.
    """
    wanted = count(model)
    if not devices or wanted is None or wanted <= len(visible):
        return
    said = list(model.gpus) if isinstance(model.gpus, tuple) else wanted
    there = ", ".join(f"{each.index} ({each.name})" for each in devices)
    seen = ", ".join(str(each.index) for each in visible) or "none"
    raise LoadFailed(
        f"The settings want gpus: {said} for the model {model_id!r}. There are {there}; its worker would "
        f"see {seen}."
    )
