"""Any config.json: always an answer, soon, and never an exception."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.placement import Placement, Refusal, place
from local_llm.gpu import Device
from local_llm.settings import Settings
from tests.supervisor.footprint.folders import LLAMA_8B, write_model
from tests.supervisor.footprint.test_published import ATTENTION, STATES

FIELDS = sorted(
    {field for config, *_ in (*ATTENTION.values(), *STATES.values()) for field in config}
    | {"quantization_config", "rope_scaling", "rope_parameters", "linear_attn_config", "compress_ratios"}
    | {"attn_config", "tie_word_embeddings", "dtype", "is_encoder_decoder", "state_size", "n_mamba_heads"}
)
MODEL_TYPES = sorted({config["model_type"] for config, *_ in (*ATTENTION.values(), *STATES.values())})
NUMBERS = st.one_of(
    st.integers(-2, 70), st.sampled_from([1 << 31, 1 << 62, 10**300, -(10**300)]), st.floats(), st.booleans()
)
VALUES = st.recursive(
    NUMBERS
    | st.none()
    | st.text(max_size=5)
    | st.sampled_from(["full_attention", "linear_attention", "mamba"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=6,
)
CONFIGS = st.builds(
    lambda base, changes, model_type: {**base, **changes, **model_type},
    st.sampled_from([{}, LLAMA_8B, *(config for config, *_ in (*ATTENTION.values(), *STATES.values()))]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5),
    st.fixed_dictionaries({}, optional={"model_type": st.sampled_from(MODEL_TYPES) | VALUES}),
)
DEVICES = [Device(each, f"GPU-{each}", "RTX", 24 << 30, 20 << 30, (8, 9)) for each in range(3)]


def judged(card: ModelCard, devices: list[Device], **model: Any) -> Placement | Refusal:
    chosen = Settings.model_validate({"models": {card.id: model}})
    footprint = footprint_of(card, chosen, on_gpu=bool(devices))
    assert footprint.weights.loaded_bytes >= 0
    return place(footprint, card, devices, chosen)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"num_hidden_layers": float("nan"), "hidden_size": float("inf")})
@example({**LLAMA_8B, "num_key_value_heads": 1 << 31, "num_hidden_layers": 10_000})
@given(CONFIGS)
def test_any_config(config: dict[str, Any]) -> None:
    """On GPUs and on the CPU, for every engine."""
    with tempfile.TemporaryDirectory() as folder:
        for engine in (Engine.VLLM, Engine.TRANSFORMERS):
            card = write_model(
                Path(folder), config, {"model.safetensors": {"w": ("BF16", (8,))}}, engine=engine
            )
            for devices in ([], DEVICES):
                outcome = judged(card, devices)
                assert isinstance(outcome, (Placement, Refusal))
                if isinstance(outcome, Placement):
                    assert outcome.summary().isprintable()
                    assert outcome.context is None or outcome.context >= 0


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "{", '{"a":' * 50_000, '{"num_hidden_layers": ' + "9" * 10_000 + "}", "\x00\xff"],
)
def test_no_config(tmp_path: Path, text: str) -> None:
    """The weights are known all the same."""
    card = write_model(tmp_path, {}, {"model.safetensors": {"w": ("BF16", (8,))}})
    (tmp_path / "config.json").write_text(text)
    found = footprint_of(card, Settings(), on_gpu=True)
    assert (found.weights.loaded_bytes, found.layers) == (16, ())
    assert "unknown" in found.notes[0]


def test_nothing_there(tmp_path: Path) -> None:
    """The folder went away after it was scanned."""
    card = ModelCard("org/a", tmp_path / "gone", Kind.CHAT, Engine.VLLM, ())
    assert isinstance(judged(card, DEVICES), Placement)


def test_millions(tmp_path: Path) -> None:
    """Lists that no model has cost a moment."""
    config = {**LLAMA_8B, "layer_types": ["full_attention"] * 300_000, "full_attn_idxs": list(range(300_000))}
    card = write_model(tmp_path, config, {"model.safetensors": {"w": ("BF16", (8,))}})
    before = time.process_time()
    judged(card, DEVICES)
    assert time.process_time() - before < 2


def test_odd_arguments(tmp_path: Path) -> None:
    """vLLM's own message is better than ours."""
    card = write_model(tmp_path, LLAMA_8B, {"model.safetensors": {"w": ("BF16", (8,))}})
    flags = (
        "--max-model-len",
        "--block-size",
        "-tp",
        "--gpu-memory-utilization",
        "--max-num-seqs",
        "--dtype",
    )
    for value in ("", "-1", "0", "auto", "1e9", "9" * 99, "²", "nan", "k", "8k"):
        for flag in flags:
            judged(card, DEVICES, args=[flag, value])
            judged(card, [], args=[flag, value], env={"VLLM_CPU_KVCACHE_SPACE": value})


def test_weights_of_a_header_with_strange_names(tmp_path: Path) -> None:
    """Names are never shown, and never a path."""
    names = ["", "../../x", "\n", "model.layers.999999.w", "x" * 10_000, "lm_head.weight"]
    card = write_model(tmp_path, LLAMA_8B, {"model.safetensors": dict.fromkeys(names, ("BF16", (8,)))})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 5, "": []}}))
    assert footprint_of(card, Settings(), on_gpu=True).weights.loaded_bytes == 0
