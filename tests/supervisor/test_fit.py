"""What can never fit is refused, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from local_llm import gpu
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import ModelDoesNotFit
from local_llm.fit import Fit, least_need_bytes
from local_llm.gpu import Device
from local_llm.settings import EnginesSettings, ModelSettings, Settings, VllmSettings

GIB = 1 << 30


def card(gib: float) -> ModelCard:
    """A model of that size."""
    return ModelCard("org/big", Path("/m"), Kind.CHAT, Engine.VLLM, (), size_bytes=int(gib * GIB))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 GiB each; full at the moment, which does not matter."""
    devices = tuple(Device(index, f"GPU-{index}", "RTX", 24 * GIB, 0) for index in range(2))
    monkeypatch.setattr(gpu, "devices", lambda: devices)


async def measured(settings: Settings | None = None, **environment: str) -> Fit:
    """Ready to judge."""
    fit = Fit(settings or Settings(), environment)
    await fit.measure()
    return fit


@pytest.mark.usefixtures("two_gpus")
async def test_all_devices_count() -> None:
    """48 GiB in all hold a model of 48 GiB, and none of 49; the message has the numbers."""
    fit = await measured()
    fit.check(card(48))
    with pytest.raises(ModelDoesNotFit) as refusal:
        fit.check(card(49))
    assert refusal.value.message.startswith(
        "The model 'org/big' needs 49.0 GiB, and the device (RTX, RTX) has 48.0 GiB in all."
    )
    assert (refusal.value.status, refusal.value.param) == (400, "model")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("where", ["server", "engine", "model"])
async def test_only_visible_devices_count(where: str) -> None:
    """CUDA_VISIBLE_DEVICES of whatever level; what one model may see counts for all."""
    one = {"CUDA_VISIBLE_DEVICES": "1"}
    engines = EnginesSettings(vllm=VllmSettings(env=one)) if where == "engine" else EnginesSettings()
    models = {"org/big": ModelSettings(env={"CUDA_VISIBLE_DEVICES": "0,1"})} if where == "model" else {}
    fit = await measured(Settings(engines=engines, models=models), **(one if where != "engine" else {}))
    if where == "server":
        with pytest.raises(ModelDoesNotFit):
            fit.check(card(30))
    else:
        fit.check(card(30))


async def test_without_a_gpu_the_host_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its cgroup."""
    monkeypatch.setattr(gpu, "devices", lambda: ())
    fit = await measured()
    fit.check(card(0.1))
    with pytest.raises(ModelDoesNotFit, match=r"this machine \(no GPU\)"):
        fit.check(card(2 * psutil.virtual_memory().total / GIB))


def test_before_it_is_measured() -> None:
    """Everything fits."""
    Fit(Settings()).check(card(1e9))


@pytest.mark.parametrize(
    ("model", "gib"),
    [
        ({}, 30),
        ({"memory_bytes": 5 * GIB}, 5),
        ({"fit": "off"}, None),
        ({"args": ("--cpu-offload-gb", "20")}, None),
        ({"args": ("--quantization=bitsandbytes",)}, None),
        ({"args": ("--max-model-len", "20")}, 30),
    ],
)
def test_need(model: dict[str, Any], gib: float | None) -> None:
    """As set, else the weights; not known where it is off or the arguments shrink the weights."""
    settings = Settings(models={"org/*": ModelSettings(**model)})
    assert least_need_bytes(card(30), settings) == (None if gib is None else gib * GIB)


def test_fit_merges_like_the_rest() -> None:
    """The exact id wins over a glob, and an entry that does not say leaves it."""
    models = {
        "org/*": ModelSettings(fit="off"),
        "org/big": ModelSettings(fit="auto"),
        "*": ModelSettings(args=("--x",)),
    }
    settings = Settings(models=models)
    assert settings.model_settings("org/big").fit == "auto"
    assert settings.model_settings("org/other").fit == "off"
