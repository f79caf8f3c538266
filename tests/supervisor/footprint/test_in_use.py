"""Where the footprint is used: vLLM's command line, and the room that the policy reckons with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.arguments import value_of
from local_llm.catalog.card import ModelCard
from local_llm.gpu import Device
from local_llm.settings import Settings
from local_llm.switchboard.describe import BYTES_PER_WEIGHT_BYTE, OVERHEAD_BYTES, need_bytes
from local_llm.worker.command import launch
from local_llm.worker.launch import Identity
from tests.supervisor.footprint.folders import LLAMA_8B_PARAMETERS, llama_8b, write_model

GIB = 1 << 30
TWO_OF_12 = [Device(each, f"GPU-{each}", "RTX", 12 * GIB, 12 * GIB) for each in range(2)]


def size_in_command(card: ModelCard, devices: list[Device], **model: Any) -> str | None:
    """What the command line says of tensor parallelism."""
    settings = Settings.model_validate({"models": {card.id: model}})
    identity = Identity("w1", card, 1, "key", Path("/t"))
    argv = launch(identity, settings, devices=devices, environment={}).argv
    return value_of(argv, "--tensor-parallel-size", "-tp")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ({}, "2"),
        ({"gpus": 1}, "1"),
        ({"args": ["-tp", "1"]}, "1"),
        ({"args": ["--pipeline-parallel-size", "2"]}, None),
        ({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, None),
    ],
)
def test_a_model_too_large_for_one_gpu_is_spread(
    tmp_path: Path, model: dict[str, Any], size: str | None
) -> None:
    """Unless somebody says otherwise."""
    assert size_in_command(llama_8b(tmp_path), TWO_OF_12, **model) == size


def test_a_small_model_is_not_spread(tmp_path: Path) -> None:
    """Nor one of which nothing is known."""
    small = write_model(
        tmp_path / "small", {"num_attention_heads": 2}, {"model.safetensors": {"w": ("U8", (8,))}}
    )
    assert size_in_command(small, TWO_OF_12) is None
    assert size_in_command(write_model(tmp_path / "bare", {}, {}), TWO_OF_12) is None


def test_the_share_is_that_of_the_fullest_it_uses(tmp_path: Path) -> None:
    """Both are looked at: the second has 11 of 12 GiB free, 10 without the reserve."""
    devices = [TWO_OF_12[0], Device(1, "GPU-1", "RTX", 12 * GIB, 11 * GIB)]
    identity = Identity("w1", llama_8b(tmp_path), 1, "key", Path("/t"))
    argv = launch(identity, Settings(), devices=devices, environment={}).argv
    assert value_of(argv, "--gpu-memory-utilization") == "0.833"


def test_room_among_others(tmp_path: Path) -> None:
    """With a limit for all, what is loaded counts; float32 files are twice that."""
    card = write_model(tmp_path, {}, {"model.safetensors": {"w": ("F32", (GIB,))}})
    limited = Settings.model_validate({"residency": {"memory_bytes": 99 * GIB}})
    assert need_bytes(card, limited) == int(2 * GIB * BYTES_PER_WEIGHT_BYTE) + OVERHEAD_BYTES
    assert need_bytes(card, Settings()) == int(card.size_bytes * BYTES_PER_WEIGHT_BYTE) + OVERHEAD_BYTES
    assert need_bytes(llama_8b(tmp_path), limited) > 2 * LLAMA_8B_PARAMETERS
