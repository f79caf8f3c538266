"""How a model's weights are quantized, and what GPU vLLM 0.32 wants for that. Pure.

The capabilities are those of `get_min_capability` of vLLM's classes under
`model_executor/layers/quantization`, and for compressed-tensors of its schemes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from local_llm.footprint.fields import Fields

Capability = tuple[int, int]

_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Quantization:
    """What is known of it.

    Attributes:
        title: for people.
        least_capability: of CUDA, major and minor; None if vLLM names none, or does not know the method.
        supported: vLLM 0.32 knows the method.
        fp8_cache: its checkpoint asks for keys and values in FP8, which vLLM follows.
    """

    title: str
    least_capability: Capability | None
    supported: bool = True
    fp8_cache: bool = False


def quantization_of(config: Fields, text: Fields, modelopt: Mapping[str, object]) -> Quantization | None:
    """None for a model that is not quantized.

    Args:
        config: config.json, outermost section.
        text: section of its language model.
        modelopt: hf_quant_config.json of older ModelOpt exports; empty without one.
    """
    for section in (config, text):
        for name in ("quantization_config", "compression_config"):
            if isinstance(section.get(name), dict):
                return _described(section.section(name))
    return _described(Fields({"quant_method": "modelopt", **modelopt})) if modelopt else None


def _described(section: Fields) -> Quantization:
    method = (section.text("quant_method") or "").lower().replace("_", "-")
    producer = section.section("producer").text("name")
    if not method and (section.get("quant_algo") is not None or producer == "modelopt"):
        method = "modelopt"
    if not method and section.get("config_groups") is not None:
        method = "compressed-tensors"
    describe = _METHODS.get(method)
    if describe is not None:
        return describe(section)
    name = method[:_LONGEST_NAME] if method.isprintable() and method else "an unnamed method"
    return Quantization(_FOREIGN.get(method, name), None, supported=False)


def _bits(section: Fields) -> str:
    bits = section.count("bits", "w_bit", "num_bits")
    return f" {bits}-bit" if bits is not None and bits <= 16 else ""


def _with_bits(title: str, least: Capability) -> Callable[[Fields], Quantization]:
    return lambda section: Quantization(title + _bits(section), least)


def _plain(title: str, least: Capability) -> Callable[[Fields], Quantization]:
    return lambda _: Quantization(title, least)


def _fp8(section: Fields) -> Quantization:
    block = section.numbers("weight_block_size")
    blocks = f" ({'x'.join(map(str, block))} blocks)" if 0 < len(block) <= 2 else ""
    return Quantization(f"FP8{blocks}", (7, 5))


def _bitsandbytes(section: Fields) -> Quantization:
    """Left out of vLLM with 0.32."""
    four = section.is_true("load_in_4bit", "_load_in_4bit")
    return Quantization(f"bitsandbytes {4 if four else 8}-bit", None, supported=False)


def _modelopt(section: Fields) -> Quantization:
    inner = section.section("quantization") if isinstance(section.get("quantization"), dict) else section
    algorithm = (inner.text("quant_algo") or section.text("quant_algo") or "").upper()
    title, least = next(
        (known for part, known in _MODELOPT.items() if part in algorithm), (algorithm[:_LONGEST_NAME], (7, 5))
    )
    scheme = inner.text("kv_cache_quant_algo", "kv_cache_scheme") or section.text("kv_cache_quant_algo")
    return Quantization(f"{title} (ModelOpt)", least, fp8_cache=_is_fp8(section, scheme))


def _is_fp8(section: Fields, named: str | None) -> bool:
    scheme = section.section("kv_cache_scheme")
    return (named or "").lower() == "fp8" or (
        scheme.count("num_bits") == 8 and scheme.text("type") == "float"
    )


def _compressed_tensors(section: Fields) -> Quantization:
    """Weights and activations, as W4A16; the first group's, which is nearly always the only one."""
    groups = section.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    group = Fields(first if isinstance(first, dict) else {})
    weights, inputs = group.section("weights"), group.section("input_activations")
    bits, is_float = weights.count("num_bits") or 16, weights.text("type") == "float"
    input_bits, input_float = inputs.count("num_bits") or 16, inputs.text("type") == "float"
    title, least = f"W{min(bits, 99)}A{min(input_bits, 99)}", (7, 5)
    if is_float and bits == 8:
        title = "FP8" if weights.count("group_size") != 32 else "MXFP8"
    elif is_float and bits == 4:
        title, least = ("MXFP4", (8, 0)) if weights.count("group_size") == 32 else ("NVFP4", (7, 5))
    elif bits == 4 and input_bits == 8 and input_float:
        title, least = "W4A8 FP8", (9, 0)
    if first is None:
        title, least = "quantized", (7, 0)
    return Quantization(f"{title} (compressed-tensors)", least, fp8_cache=_is_fp8(section, None))


def _torchao(section: Fields) -> Quantization:
    kind = section.get("quant_type")
    default = kind.get("default") if isinstance(kind, dict) else kind
    name = default.get("_type") if isinstance(default, dict) else default
    shown = f" {name[:_LONGEST_NAME]}" if isinstance(name, str) and name.isprintable() else ""
    return Quantization(f"torchao{shown}", (7, 5))


_MODELOPT: Mapping[str, tuple[str, Capability]] = {
    "MIXED": ("mixed precision", (7, 5)),
    "NVFP4": ("NVFP4", (7, 5)),
    "MXFP8": ("MXFP8", (8, 0)),
    "FP8": ("FP8", (8, 0)),
    "FP4": ("FP4", (7, 5)),
}
_METHODS: Mapping[str, Callable[[Fields], Quantization]] = {
    "awq": _with_bits("AWQ", (7, 5)),
    "gptq": _with_bits("GPTQ", (6, 0)),
    "auto-round": _with_bits("AutoRound", (6, 0)),
    "fp8": _fp8,
    "fbgemm-fp8": _plain("FP8 (FBGEMM)", (8, 0)),
    "fp-quant": _plain("FP-Quant", (10, 0)),
    "mxfp4": _plain("MXFP4", (8, 0)),
    "mxfp8": _plain("MXFP8", (8, 0)),
    "experts-int8": _plain("INT8 experts", (8, 0)),
    "modelopt": _modelopt,
    "modelopt-fp4": _modelopt,
    "compressed-tensors": _compressed_tensors,
    "quark": _plain("Quark", (7, 0)),
    "torchao": _torchao,
    "bitsandbytes": _bitsandbytes,
}
_FOREIGN = {"hqq": "HQQ", "aqlm": "AQLM", "eetq": "EETQ", "quanto": "Quanto", "vptq": "VPTQ", "spqr": "SpQR"}


def in_words(capability: Capability) -> str:
    """`8.9`."""
    return f"{capability[0]}.{capability[1]}"
