"""The names that people know, and the GPU that vLLM 0.32 wants."""

from __future__ import annotations

from typing import Any

import pytest

from local_llm.footprint.fields import Fields
from local_llm.footprint.quantization import Quantization, quantization_of

FP8_GROUP = {
    "weights": {"num_bits": 8, "type": "float"},
    "input_activations": {"num_bits": 8, "type": "float"},
}
INT4 = {"num_bits": 4, "type": "int", "group_size": 128}


def found(section: dict[str, Any]) -> Quantization:
    """Of a quantization_config."""
    quantization = quantization_of(Fields({"quantization_config": section}), Fields({}), {})
    assert quantization is not None
    return quantization


@pytest.mark.parametrize(
    ("section", "title", "least"),
    [
        ({"quant_method": "awq", "bits": 4}, "AWQ 4-bit", (7, 5)),
        ({"quant_method": "gptq", "bits": 8}, "GPTQ 8-bit", (6, 0)),
        ({"quant_method": "auto-round", "bits": 4}, "AutoRound 4-bit", (6, 0)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8 (128x128 blocks)", (7, 5)),
        ({"quant_method": "fp8"}, "FP8", (7, 5)),
        ({"quant_method": "fbgemm_fp8"}, "FP8 (FBGEMM)", (8, 0)),
        ({"quant_method": "mxfp4"}, "MXFP4", (8, 0)),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4 (ModelOpt)", (7, 5)),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "FP8 (ModelOpt)", (8, 0)),
        ({"producer": {"name": "modelopt"}, "quant_algo": "FP8"}, "FP8 (ModelOpt)", (8, 0)),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao Int4WeightOnlyConfig",
            (7, 5),
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes 4-bit", None),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes 8-bit", None),
        ({"quant_method": "hqq"}, "HQQ", None),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": FP8_GROUP}},
            "FP8 (compressed-tensors)",
            (7, 5),
        ),
        (
            {"quant_method": "compressed_tensors", "config_groups": {"group_0": {"weights": INT4}}},
            "W4A16 (compressed-tensors)",
            (7, 5),
        ),
        (
            {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}},
            "NVFP4 (compressed-tensors)",
            (7, 5),
        ),
        (
            {"config_groups": {"g": {"weights": {"num_bits": 4, "type": "float", "group_size": 32}}}},
            "MXFP4 (compressed-tensors)",
            (8, 0),
        ),
        (
            {
                "config_groups": {
                    "g": {"weights": INT4, "input_activations": {"num_bits": 8, "type": "float"}}
                }
            },
            "W4A8 FP8 (compressed-tensors)",
            (9, 0),
        ),
    ],
)
def test_methods(section: dict[str, Any], title: str, least: tuple[int, int] | None) -> None:
    """From `quantization_config`."""
    quantization = found(section)
    assert (quantization.title, quantization.least_capability) == (title, least)
    assert quantization.supported == (least is not None)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"quant_method": 7},
        {"quant_method": "\x00\n"},
        {"quant_method": "x" * 9999},
        {"config_groups": []},
        {"config_groups": {"a": None}},
        {"quant_method": "awq", "bits": float("nan")},
        {"quant_method": "fp8", "weight_block_size": ["a", -1]},
        {"quant_method": "modelopt", "quantization": 5},
        {"quant_method": "torchao", "quant_type": [[]]},
    ],
)
def test_odd_sections(section: dict[str, Any]) -> None:
    """Always a short, printable name."""
    title = found(section).title
    assert title.isprintable()
    assert 0 < len(title) < 60


def test_where_it_is_said() -> None:
    """In a nested section, under compressed-tensors' own name, or in ModelOpt's own file."""
    awq = {"quant_method": "awq"}
    assert quantization_of(Fields({}), Fields({"quantization_config": awq}), {}) == found(awq)
    assert quantization_of(Fields({"compression_config": awq}), Fields({}), {}) == found(awq)
    modelopt = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}
    quantization = quantization_of(Fields({}), Fields({}), modelopt)
    assert quantization is not None
    assert quantization.title == "NVFP4 (ModelOpt)"
    assert quantization_of(Fields({"quantization_config": None}), Fields({}), {}) is None


@pytest.mark.parametrize(
    ("section", "fp8"),
    [
        (
            {"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            True,
        ),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, False),
        ({"config_groups": {}, "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, True),
        ({"config_groups": {}, "kv_cache_scheme": None}, False),
    ],
)
def test_a_checkpoint_may_want_its_cache_in_fp8(section: dict[str, Any], fp8: bool) -> None:
    """vLLM follows it where the arguments say nothing."""
    assert found(section).fp8_cache is fp8
