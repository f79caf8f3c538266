"""What can never fit is refused, and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from local_llm import gpu
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.engine_settings import EnginesSettings, VllmSettings
from local_llm.errors import ModelDoesNotFit
from local_llm.fit import Fit, least_need_bytes
from local_llm.gpu import Device
from local_llm.settings import ModelSettings, Settings
from tests.supervisor.footprint.folders import llama_8b, write_model

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
    await fit.check(card(48))
    with pytest.raises(ModelDoesNotFit) as refusal:
        await fit.check(card(49))
    assert refusal.value.message.startswith(
        "The model 'org/big' needs 49.0 GiB, and the device (RTX, RTX) has 48.0 GiB in all."
    )
    assert (refusal.value.status, refusal.value.param) == (400, "model")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("where", ["server", "engine", "model"])
async def test_only_visible_devices_count(where: str) -> None:
    """CUDA_VISIBLE_DEVICES of whatever level, the model's own before the engine's before the server's."""
    one = {"CUDA_VISIBLE_DEVICES": "1"}
    engines = EnginesSettings(vllm=VllmSettings(env=one)) if where == "engine" else EnginesSettings()
    models = {"org/big": ModelSettings(env={"CUDA_VISIBLE_DEVICES": "0,1"})} if where == "model" else {}
    fit = await measured(Settings(engines=engines, models=models), **(one if where != "engine" else {}))
    if where != "model":
        with pytest.raises(ModelDoesNotFit):
            await fit.check(card(30))
    else:
        await fit.check(card(30))


async def test_without_a_gpu_the_host_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its cgroup."""
    monkeypatch.setattr(gpu, "devices", lambda: ())
    fit = await measured()
    await fit.check(card(0.1))
    with pytest.raises(ModelDoesNotFit, match=r"this machine \(no GPU\)"):
        await fit.check(card(2 * psutil.virtual_memory().total / GIB))


async def test_before_it_is_measured() -> None:
    """Everything fits."""
    await Fit(Settings()).check(card(1e9))


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


async def test_what_the_headers_say_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 8 GiB are 16 in all, which would do for 15; vLLM's share of them is not."""
    devices = tuple(Device(index, f"GPU-{index}", "RTX", 8 * GIB, 8 * GIB) for index in range(2))
    monkeypatch.setattr(gpu, "devices", lambda: devices)
    large = llama_8b(tmp_path)
    with pytest.raises(ModelDoesNotFit) as refusal:
        await (await measured()).check(large)
    assert refusal.value.message.startswith(
        "The model 'org/a' needs 7.5 GiB for its weights on each of 2 devices; RTX has 8.0 GiB, of which "
        "vLLM is given 7.0 GiB. Use a smaller"
    )
    await (await measured(Settings(models={"org/a": ModelSettings(fit="off")}))).check(large)
    await (await measured(Settings(models={"org/a": ModelSettings(memory_bytes=1)}))).check(large)
    adapter = ModelCard("org/b", tmp_path / "none", Kind.CHAT, Engine.VLLM, (), base=large)
    with pytest.raises(ModelDoesNotFit, match="'org/b'"):
        await (await measured()).check(adapter)


async def test_a_card_is_looked_into_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then again when it, the settings or the devices have changed."""
    monkeypatch.setattr(gpu, "devices", lambda: ())
    seen: list[str] = []
    monkeypatch.setattr("local_llm.fit.misfit", lambda card, **_: seen.append(card.id))
    fit = await measured()
    for _ in range(3):
        await fit.check(card(1))
    assert len(seen) == 1
    await fit.check(card(2))
    fit.use(Settings())
    await fit.check(card(2))
    await fit.measure()
    await fit.check(card(2))
    assert len(seen) == 4


async def test_what_was_judged_by_old_settings_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may change while a thread still reads a model's headers."""
    monkeypatch.setattr(gpu, "devices", lambda: ())
    judged_by: list[Settings] = []
    old, new = Settings(), Settings(aliases={"b": "a"})
    reading, go_on = threading.Event(), threading.Event()

    def slow(card: ModelCard, *, settings: Settings, **_: object) -> str | None:
        judged_by.append(settings)
        if settings is old:
            reading.set()
            go_on.wait(30)
            return "was too large."
        return None

    monkeypatch.setattr("local_llm.fit.misfit", slow)
    fit = Fit(old, {})
    await fit.measure()
    async with anyio.create_task_group() as tasks:

        async def refused() -> None:
            with pytest.raises(ModelDoesNotFit):
                await fit.check(card(1))

        tasks.start_soon(refused)
        await anyio.to_thread.run_sync(reading.wait)
        fit.use(new)
        go_on.set()
    await fit.check(card(1))
    assert judged_by == [old, new]


async def test_the_capability_counts_without_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pickled, quantized weights on an old GPU."""
    monkeypatch.setattr(gpu, "devices", lambda: (Device(0, "GPU-0", "T4", 16 * GIB, 0, (7, 5)),))
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "mxfp4"}}')
    pickled = ModelCard("org/a", tmp_path, Kind.CHAT, Engine.VLLM, (), size_bytes=1, weights=("a.bin",))
    with pytest.raises(ModelDoesNotFit, match=r"MXFP4.*capability 8\.0; T4 has 7\.5"):
        await (await measured()).check(pickled)


def test_need_of_a_command(tmp_path: Path) -> None:
    """Its own business, unless the settings say."""
    server = ModelCard("org/a", tmp_path, Kind.CHAT, Engine.COMMAND, (), size_bytes=30)
    assert least_need_bytes(server, Settings()) is None
    assert least_need_bytes(server, Settings(models={"org/a": ModelSettings(memory_bytes=5)})) == 5


def test_need_of_what_is_cast(tmp_path: Path) -> None:
    """Float32 takes half on a GPU."""
    stored = write_model(tmp_path, {}, {"model.safetensors": {"w": ("F32", (1000,))}})
    assert least_need_bytes(stored, Settings()) == 2000
