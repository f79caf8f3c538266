"""Fit before evict: what can never fit the device is refused before a working model makes way for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio

from local_llm import gpu
from local_llm.catalog.card import ModelCard
from local_llm.catalog.per_card import PerCard
from local_llm.errors import ModelDoesNotFit
from local_llm.gpu import Device, in_gib
from local_llm.settings import Settings
from local_llm.worker.arguments import is_set
from local_llm.worker.environment import visible_devices

# With these, the weights take less of the device than their files say, or nothing.
_SHRINKING_FLAGS = ("--cpu-offload-gb", "--quantization", "-q", "--load-format", "--hf-overrides")


@dataclass(frozen=True, slots=True)
class _Total:
    """All that workers may ever use.

    Attributes:
        size_bytes: of it.
        words: what it is, for people.
    """

    size_bytes: int
    words: str


class Fit:
    """Knows how much memory there is in all, and refuses what is larger.

    Args:
        settings: all of them.
        environment: what workers inherit; None means this process's own.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._environment = os.environ if environment is None else environment
        self._total: _Total | None = None
        self._least_need_bytes = PerCard(lambda card: least_need_bytes(card, settings))

    async def measure(self) -> None:
        """Reads what there is, once, in a thread: NVML may take its time. Until then everything fits."""
        self._total = await anyio.to_thread.run_sync(_measure, self._settings, dict(self._environment))

    def check(self, card: ModelCard) -> None:
        """Cheap enough for every request.

        Raises:
            ModelDoesNotFit: the model can never be loaded here.
        """
        total = self._total
        if total is None:
            return
        need_bytes = self._least_need_bytes(card)
        if need_bytes is not None and need_bytes > total.size_bytes:
            raise ModelDoesNotFit(
                f"The model {card.id!r} needs {in_gib(need_bytes)}, and {total.words} has "
                f"{in_gib(total.size_bytes)} in all. Use a smaller or quantized one, or set fit: off for "
                "it if it needs less.",
                param="model",
            )


def least_need_bytes(card: ModelCard, settings: Settings) -> int | None:
    """The memory below which a model cannot work: as set for it, else the size of its weights.

    None if nothing is known: its fit is off, or its arguments make the weights smaller than their files.
    """
    model = settings.model_settings(card.id)
    args = (*settings.engine_settings(card.engine).args, *model.args)
    if model.fit == "off" or any(is_set(args, flag) for flag in _SHRINKING_FLAGS):
        return None
    return card.size_bytes if model.memory_bytes is None else model.memory_bytes


def _measure(settings: Settings, environment: Mapping[str, str]) -> _Total:
    visible = visible_to(gpu.devices(), settings, environment)
    if not visible:
        return _Total(gpu.host_memory().total_bytes, "this machine (no GPU)")
    names = ", ".join(device.name for device in visible)
    return _Total(sum(device.total_bytes for device in visible), f"the device ({names})")


def visible_to(
    devices: Sequence[Device], settings: Settings, environment: Mapping[str, str]
) -> Sequence[Device]:
    """The devices that at least some worker may use, by CUDA_VISIBLE_DEVICES of the engines and models."""
    environments = [
        *({**environment, **engine.env} for engine in (settings.engines.vllm, settings.engines.transformers)),
        *({**environment, **model.env} for model in settings.models.values()),
    ]
    seen = {
        device.uuid
        for each in environments
        for device in visible_devices(devices, each.get("CUDA_VISIBLE_DEVICES"))
    }
    return [device for device in devices if device.uuid in seen]
