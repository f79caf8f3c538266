"""Fit before evict: what can never fit the device is refused before a working model makes way for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

import anyio

from local_llm import gpu, model_gpus
from local_llm.arguments import is_set
from local_llm.catalog.card import Engine, ModelCard
from local_llm.catalog.per_card import PerCard
from local_llm.errors import ModelDoesNotFit
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.placement import SHRINKING_FLAGS, Refusal, place, too_weak
from local_llm.gpu import Device, in_gib
from local_llm.settings import Settings

_ADVICE = "Use a smaller or quantized one, or set fit: off for it if it needs less."


class Fit:
    """Knows how much memory there is in all, and refuses what is larger.

    Args:
        settings: all of them.
        environment: what workers inherit; None means this process's own.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = dict(os.environ if environment is None else environment)
        self._devices: Sequence[Device] | None = None
        self._misfit: PerCard[str | None] | None = None

    def use(self, settings: Settings) -> None:
        """Takes changed settings in."""
        self._settings = settings
        self._begin_anew()

    async def measure(self) -> None:
        """Reads what there is, once, in a thread: NVML may take its time. Until then everything fits."""
        self._devices = await anyio.to_thread.run_sync(gpu.devices)
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Another memory of results: what a thread still works out from the old facts goes to the old one."""
        if self._devices is not None:
            self._misfit = PerCard(
                partial(
                    misfit,
                    settings=self._settings,
                    devices=self._devices,
                    environment=self._environment,
                )
            )

    async def check(self, card: ModelCard) -> None:
        """Cheap enough for every request: of a card, the files are looked at once, in a thread.

        Raises:
            ModelDoesNotFit: the model can never be loaded here.
        """
        reason_of = self._misfit
        if reason_of is None:
            return
        reason = reason_of(card) if reason_of.knows(card) else await anyio.to_thread.run_sync(reason_of, card)
        if reason is not None:
            raise ModelDoesNotFit(f"The model {card.id!r} {reason} {_ADVICE}", param="model")


def misfit(
    card: ModelCard, settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> str | None:
    """Why a model can never be loaded here, to follow "The model 'x' "; None: it may. For a thread.

    Args:
        card: of the model; an adapter fits where its base does.
        settings: all of them.
        devices: every GPU there is, taken to be empty.
        environment: what workers inherit.
    """
    card = card.runs_as
    model = settings.model_settings(card.id)
    visible = model_gpus.visible_to(card, devices, settings, environment)
    if not _is_judged(card, settings):
        return None
    if model.memory_bytes is not None:
        return _larger_than_all(model.memory_bytes, visible)
    footprint = footprint_of(card, settings, on_gpu=bool(visible))
    if footprint.weights.exact:
        outcome = place(footprint, card, visible, settings)
        return outcome.reason if isinstance(outcome, Refusal) else None
    weak = too_weak(footprint, visible)
    return _larger_than_all(card.size_bytes, visible) if weak is None else weak.reason


def least_need_bytes(card: ModelCard, settings: Settings) -> int | None:
    """The memory below which a model cannot work on GPUs: as set for it, else its weights. For a thread.

    None if nothing is known: its fit is off, or its arguments make the weights smaller than their files.
    """
    model = settings.model_settings(card.id)
    if not _is_judged(card, settings):
        return None
    if model.memory_bytes is not None:
        return model.memory_bytes
    weights = footprint_of(card, settings, on_gpu=True).weights
    return weights.loaded_bytes if weights.exact else card.size_bytes


def _is_judged(card: ModelCard, settings: Settings) -> bool:
    """What a command does with a model's files is its own business, unless the settings say what it needs."""
    model = settings.model_settings(card.id)
    args = (*settings.engine_settings(card.engine).args, *model.args)
    if model.fit == "off" or any(is_set(args, flag) for flag in SHRINKING_FLAGS):
        return False
    return card.engine is not Engine.COMMAND or model.memory_bytes is not None


def _larger_than_all(need_bytes: int, visible: Sequence[Device]) -> str | None:
    """A need that is not known device by device is held against all of them together."""
    if visible:
        total_bytes = sum(device.total_bytes for device in visible)
        words = f"the device ({', '.join(device.name for device in visible)})"
    else:
        total_bytes, words = gpu.host_memory().total_bytes, "this machine (no GPU)"
    if need_bytes <= total_bytes:
        return None
    return f"needs {in_gib(need_bytes)}, and {words} has {in_gib(total_bytes)} in all."
