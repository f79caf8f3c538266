"""Type of number, threads and batch size, by the device; what a GPU has is told to torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from local_llm_worker.pooling.device import batch_limits, choose_device, choose_dtype, choose_lanes
from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Kind
from local_llm_worker.pooling.loading import LoadOptions, load
from local_llm_worker.pooling.turns import Lanes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "model_type", "expected"),
    [
        (CPU, False, "bert", torch.float32),
        (CPU, True, "bert", torch.float32),
        (GPU, True, "bert", torch.bfloat16),
        (GPU, True, "gemma3_text", torch.bfloat16),
        (GPU, False, "bert", torch.float16),
        (GPU, False, "gemma3_text", torch.float32),  # overflows in float16
    ],
)
def test_type_of_the_weights(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    has_bfloat16: bool,
    model_type: str,
    expected: torch.dtype,
) -> None:
    """bfloat16 on a GPU that computes in it, not one that only emulates it; float32 on a CPU."""

    def is_bf16_supported(*, including_emulation: bool) -> bool:
        return has_bfloat16 or including_emulation

    monkeypatch.setattr("torch.cuda.is_bf16_supported", is_bf16_supported)

    assert choose_dtype("auto", device, model_type) == expected
    assert choose_dtype("float32", device, model_type) == torch.float32


def test_float16_that_overflows_is_refused() -> None:
    """Asked for by name it is refused, rather than answered with vectors that are no numbers."""
    with pytest.raises(ModelRefused, match="overflow"):
        choose_dtype("float16", GPU, "gemma3_text")


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU if there is one and nobody says otherwise; one that is not there is refused."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [choose_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelRefused, match="no CUDA device"):
        choose_device("cuda")


def test_batches_on_a_cpu_are_smaller() -> None:
    """Within what the user allows; there a batch costs little by itself."""
    assert batch_limits(CPU, 16_384).max_tokens < batch_limits(GPU, 16_384).max_tokens == 16_384
    assert batch_limits(CPU, 100).max_tokens == batch_limits(GPU, 100).max_tokens == 100
    assert batch_limits(CPU, 16_384).batch_cost < batch_limits(GPU, 16_384).batch_cost


@pytest.mark.parametrize(
    ("device", "threads", "family", "remote_code", "beside"),
    [
        (CPU, 2, "bert", False, (1, 1)),
        (CPU, 5, "xlm-roberta", False, (3, 2)),
        (CPU, 1, "bert", False, (1,)),
        (CPU, 4, "bert", True, (4,)),
        (CPU, 4, "big_bird", False, (4,)),  # changes its attention with the length of a batch
        (CPU, 4, "qwen3", False, (4,)),  # its rotary frequencies may change with it
        (GPU, 4, "bert", False, (4,)),
    ],
)
def test_batches_at_once(
    device: torch.device, threads: int, family: str, remote_code: bool, beside: tuple[int, ...]
) -> None:
    """Two on a CPU, for families whose code keeps nothing between batches; alone a batch has all threads."""
    assert choose_lanes(device, threads, family, remote_code=remote_code) == Lanes(threads, beside)


def test_threads_are_those_asked_for(monkeypatch: pytest.MonkeyPatch, embedding_folder: Path) -> None:
    """torch is told by call: in a process forked from a template it has read its environment already."""
    told: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", told.append)

    load(embedding_folder, LoadOptions(Kind.EMBEDDING, device="cpu", threads=3))

    assert told == [3]
