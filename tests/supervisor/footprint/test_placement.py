"""On how many devices, with what context, or why nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm import gpu
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.parallel import tensor_parallel_size
from local_llm.footprint.placement import Placement, Refusal, place
from local_llm.gpu import Device, HostMemory
from local_llm.settings import Settings
from tests.supervisor.footprint.folders import LLAMA_8B, llama_8b, write_model

GIB = 1 << 30


def gpus(
    count: int, gib: float, capability: tuple[int, int] | None = (8, 9), *, used_gib: float = 0
) -> list[Device]:
    """So many alike."""
    free = int((gib - used_gib) * GIB)
    return [Device(each, f"GPU-{each}", "RTX", int(gib * GIB), free, capability) for each in range(count)]


def placed(
    card: ModelCard, devices: list[Device], *, free: bool = False, **model: Any
) -> Placement | Refusal:
    """With settings for this model."""
    settings = Settings.model_validate({"models": {card.id: model}})
    footprint = footprint_of(card, settings, on_gpu=bool(devices))
    return place(footprint, card, devices, settings, free=free)


def fits(outcome: Placement | Refusal) -> Placement:
    assert isinstance(outcome, Placement), outcome
    return outcome


def reason(outcome: Placement | Refusal) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.reason


def test_one_gpu(tmp_path: Path) -> None:
    """24 GiB, 8% left to others: 22.08 less 14.96 of weights less about 0.97 leave 6.15 for the cache.

    A token takes 128 KiB, so 50,400 of them fit.
    """
    found = fits(placed(llama_8b(tmp_path), gpus(2, 24)))
    assert (found.tensor_parallel, len(found.devices), found.full_context) == (1, 1, 131072)
    assert found.context is not None
    assert found.kv_tokens is not None
    assert 48_000 < found.context < 52_000
    assert 0 <= found.kv_tokens - found.context < 64
    assert "1 x RTX: 15.0 GiB of weights" in found.summary()
    assert f"context {found.context:,} of 131,072" in found.summary()


def test_the_smallest_number_that_fits(tmp_path: Path) -> None:
    """15 GiB of weights need two of 12, four of 6; three do not divide 32 heads."""
    card = llama_8b(tmp_path)
    assert fits(placed(card, gpus(4, 12))).tensor_parallel == 2
    assert fits(placed(card, gpus(3, 10))).tensor_parallel == 2
    assert fits(placed(card, gpus(4, 6))).tensor_parallel == 4
    assert "on each of 2 devices" in reason(placed(card, gpus(3, 6)))


def test_more_devices_for_a_useful_context(tmp_path: Path) -> None:
    """On one of 17 GiB some 200 tokens would fit: two give all that the model has."""
    card = llama_8b(tmp_path)
    assert (fits(placed(card, gpus(1, 17))).context or 0) < 8192
    assert fits(placed(card, gpus(2, 17))).tensor_parallel == 2


def test_a_refusal_has_the_numbers(tmp_path: Path) -> None:
    """What is needed, and what there is."""
    assert reason(placed(llama_8b(tmp_path), gpus(1, 12))) == (
        "needs 15.0 GiB for its weights on each of 1 device; "
        "RTX has 12.0 GiB, of which vLLM is given 11.0 GiB."
    )


@pytest.mark.parametrize("model", [{"context": 131072}, {"args": ["--max-model-len", "131072"]}])
def test_a_context_that_is_asked_for(tmp_path: Path, model: dict[str, Any]) -> None:
    """16 GiB of cache beside 15 of weights: not on one of 24, but on two, or in FP8 on one of 32."""
    card = llama_8b(tmp_path)
    assert "16.0 GiB for a context of 131,072 tokens" in reason(placed(card, gpus(1, 24), **model))
    found = fits(placed(card, gpus(2, 24), **model))
    assert (found.tensor_parallel, found.context) == (2, 131072)
    args = [*model.get("args", ()), "--kv-cache-dtype", "fp8"]
    assert fits(placed(card, gpus(1, 32), **{**model, "args": args})).context == 131072


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ({"gpus": 4}, 4),
        ({"gpus": [0, 1]}, 2),
        ({"args": ["-tp", "2"]}, 2),
        ({"args": ["--tensor-parallel-size=4"]}, 4),
        ({"args": ["--tensor_parallel_size", "8"]}, 4),  # no more than there are
    ],
)
def test_a_number_that_is_said(tmp_path: Path, model: dict[str, Any], size: int) -> None:
    """It counts, though one would do."""
    assert fits(placed(llama_8b(tmp_path), gpus(4, 80), **model)).tensor_parallel == size


def test_heads_of_keys_decide_too(tmp_path: Path) -> None:
    """14 heads and 2 for keys, as Qwen2.5-0.5B has: two share them, seven could not."""
    config = {**LLAMA_8B, "num_attention_heads": 14, "num_key_value_heads": 2, "hidden_size": 896}
    config["intermediate_size"] = 14 * 64
    card = write_model(tmp_path, config, {"model.safetensors": {"w": ("BF16", (5 * GIB,))}})
    assert fits(placed(card, gpus(8, 6.5))).tensor_parallel == 2
    assert "on each of 14 devices" in reason(placed(card, gpus(14, 0.1)))


def test_what_others_hold(tmp_path: Path) -> None:
    """Counts only where it is asked for: at a launch, not in what can ever fit."""
    card, devices = llama_8b(tmp_path), gpus(2, 24, used_gib=12)
    assert fits(placed(card, devices)).tensor_parallel == 1
    assert fits(placed(card, devices, free=True)).tensor_parallel == 2
    assert tensor_parallel_size(card, Settings(), devices) == 2
    assert tensor_parallel_size(card, Settings(), gpus(2, 24, used_gib=24)) == 1


def test_compute_capability(tmp_path: Path) -> None:
    """Told before anything is stopped; a driver that does not say is trusted."""
    quantized = {"quantization_config": {"quant_method": "mxfp4"}}
    card = llama_8b(tmp_path, **quantized)
    assert reason(placed(card, gpus(1, 24, (7, 5)))) == (
        "is quantized with MXFP4, for which vLLM needs a GPU of compute capability 8.0; RTX has 7.5."
    )
    fits(placed(card, gpus(1, 24, (8, 0))))
    fits(placed(card, gpus(1, 24, None)))


@pytest.mark.parametrize("flag", ["--cpu-offload-gb=8", "--quantization=fp8", "-pp=2", "--load-format=dummy"])
def test_what_is_not_judged(tmp_path: Path, flag: str) -> None:
    """Arguments that change what a device must hold."""
    found = fits(placed(llama_8b(tmp_path), gpus(1, 1), args=[flag]))
    assert "not judged" in found.notes[0]
    assert found.context is None


def test_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings say how large the cache is: 1 GiB is 8,192 tokens of 128 KiB, less a block of 128."""
    card = llama_8b(tmp_path)
    monkeypatch.setattr(gpu, "host_memory", lambda: HostMemory(32 * GIB, 0))
    found = fits(placed(card, []))
    assert (found.context, found.kv_tokens, found.devices) == (8192 - 128, 8192, ())
    assert fits(placed(card, [], env={"VLLM_CPU_KVCACHE_SPACE": "4"})).context == 4 * 8192 - 128
    assert "raise engines.vllm.cpu_kv_cache_gib" in reason(placed(card, [], context=9000))
    monkeypatch.setattr(gpu, "host_memory", lambda: HostMemory(15 * GIB, 0))
    assert reason(placed(card, [])) == (
        "needs 15.0 GiB for its weights and 1.0 GiB for the KV cache (engines.vllm.cpu_kv_cache_gib); "
        "this machine (no GPU) has 15.0 GiB."
    )


def test_the_server_of_embeddings_uses_one_device(tmp_path: Path) -> None:
    """However many there are."""
    files = {"model.safetensors": {"w": ("BF16", (5 * GIB,))}}
    card = write_model(tmp_path, {}, files, kind=Kind.EMBEDDING, engine=Engine.TRANSFORMERS)
    assert len(fits(placed(card, gpus(2, 11))).devices) == 1
    assert "10.0 GiB for its weights; RTX has 9.0 GiB" in reason(placed(card, gpus(2, 9)))


def test_a_command_is_not_judged(tmp_path: Path) -> None:
    """It may do with the files as it likes."""
    card = write_model(
        tmp_path, {}, {"model.safetensors": {"w": ("BF16", (5 * GIB,))}}, engine=Engine.COMMAND
    )
    assert "not known" in fits(placed(card, gpus(1, 1))).notes[0]


def test_an_adapter_goes_where_its_base_goes(tmp_path: Path) -> None:
    """The card that runs counts."""
    base = llama_8b(tmp_path)
    adapter = ModelCard("org/b", tmp_path / "none", Kind.CHAT, Engine.VLLM, (), base=base)
    assert placed(adapter, gpus(1, 24)) == placed(base, gpus(1, 24))
