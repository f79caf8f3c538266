"""Which GPUs a model's worker sees, and how many of them its settings want. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from local_llm.catalog.card import ModelCard
from local_llm.errors import LoadFailed
from local_llm.gpu import Device
from local_llm.model_settings import ModelSettings
from local_llm.settings import Settings


def count(model: ModelSettings) -> int | None:
    """How many GPUs a model spreads over; None: its settings do not say."""
    return len(model.gpus) if isinstance(model.gpus, tuple) else model.gpus


def environment_of(model: ModelSettings) -> dict[str, str]:
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


def visible_to(
    card: ModelCard, devices: Sequence[Device], settings: Settings, environment: Mapping[str, str]
) -> Sequence[Device]:
    """The devices that a model's worker will see, by CUDA_VISIBLE_DEVICES and its `gpus`."""
    engine, model = settings.engine_settings(card.engine), settings.model_settings(card.id)
    given = {**environment, **engine.env, **model.env, **environment_of(model)}
    return visible_devices(devices, given.get("CUDA_VISIBLE_DEVICES"))


def visible_devices(devices: Sequence[Device], cuda_visible_devices: str | None) -> list[Device]:
    """The devices that CUDA will show the worker, in its order.

    Args:
        devices: all, by index.
        cuda_visible_devices: the variable; None for all, else indices or the beginnings of UUIDs. As in
            CUDA, the first that names no device ends the list.
    """
    if cuda_visible_devices is None:
        return list(devices)
    visible: list[Device] = []
    for name in (each.strip() for each in cuda_visible_devices.split(",")):
        found = [
            each
            for each in devices
            if (name.isdecimal() and each.index == int(name)) or (name and each.uuid.startswith(name))
        ]
        if len(found) != 1:
            break
        visible += found
    return visible
