"""The fixed state of layers that keep no keys and values. Shapes as vLLM's `MambaStateShapeCalculator`."""

from __future__ import annotations

from collections.abc import Callable

from local_llm.footprint.fields import Fields
from local_llm.footprint.layers import State, UnknownLayers, ValueBytes
from local_llm.footprint.weights import FLOAT_BYTES


def state_of(text: Fields, sizes: ValueBytes) -> State:
    """The state of one layer; all such layers of a model are alike.

    Args:
        text: config section of the language model.
        sizes: of numbers.

    Raises:
        UnknownLayers: none of the known fields is there.
    """
    for name, work_out in _BY_FIELD.items():
        if text.get(name) is not None:
            return work_out(text, sizes)
    raise UnknownLayers("its layers keep a state of unknown size")


def _need(text: Fields, *names: str) -> int:
    value = text.count(*names)
    if value is None:
        raise UnknownLayers(f"config.json does not say {names[0]}")
    return value


def _short_convolution(text: Fields, sizes: ValueBytes) -> State:
    """LFM2."""
    kernel = _need(text, "conv_L_cache")
    return State((kernel - 1) * _need(text, "conv_dim", "hidden_size") * sizes.model)


def _gated_delta_net(text: Fields, sizes: ValueBytes) -> State:
    """Qwen3-Next and 3.5, OLMo hybrid."""
    key_dim, value_dim = _need(text, "linear_key_head_dim"), _need(text, "linear_value_head_dim")
    key_heads, value_heads = _need(text, "linear_num_key_heads"), _need(text, "linear_num_value_heads")
    width = 2 * key_heads * key_dim + value_heads * value_dim
    convolution = width * (_need(text, "linear_conv_kernel_dim") - 1)
    recurrent = value_heads * value_dim * key_dim
    size = sizes.recurrent or FLOAT_BYTES.get(text.text("mamba_ssm_dtype") or "", sizes.model)
    return State(convolution * sizes.model + recurrent * size)


def _kimi_delta(text: Fields, sizes: ValueBytes) -> State:
    """Kimi Linear."""
    linear = text.section("linear_attn_config")
    heads, width = _need(linear, "num_heads"), _need(linear, "head_dim")
    convolution = 3 * heads * width * ((linear.count("short_conv_kernel_size") or 4) - 1)
    recurrent = heads * width * width * (sizes.recurrent or 4)
    return State(convolution * sizes.model + recurrent, checkpoints=1)


def _mamba_1(sizes: ValueBytes, inner: int, state: int, kernel: int) -> State:
    convolution, recurrent = inner * (kernel - 1), inner * state
    return State(convolution * sizes.model + recurrent * (sizes.recurrent or sizes.model))


def _jamba(text: Fields, sizes: ValueBytes) -> State:
    inner = _need(text, "mamba_expand") * _need(text, "hidden_size")
    return _mamba_1(sizes, inner, _need(text, "mamba_d_state"), _need(text, "mamba_d_conv"))


def _mamba(text: Fields, sizes: ValueBytes) -> State:
    """Pure Mamba, whose second version has heads."""
    if text.count("num_heads") is not None:
        inner = _need(text, "expand") * _need(text, "hidden_size")
        heads, width = _need(text, "num_heads"), _need(text, "head_dim")
        return _mamba_2(text, sizes, inner, heads * width, "state_size", "n_groups", "conv_kernel")
    inner = text.count("intermediate_size") or _need(text, "expand") * _need(text, "hidden_size")
    return _mamba_1(sizes, inner, _need(text, "state_size"), _need(text, "conv_kernel"))


def _mamba_2(
    text: Fields, sizes: ValueBytes, inner: int, heads_width: int, state: str, groups: str, kernel: str
) -> State:
    """`state`, `groups` and `kernel` are the fields' names in the family."""
    depth, kernel_size = _need(text, state), _need(text, kernel)
    group_bytes = 2 * depth * (kernel_size - 1) * sizes.model
    group_count = _need(text, groups)
    convolution = inner * (kernel_size - 1) * sizes.model + group_count * group_bytes
    recurrent = heads_width * depth * (sizes.recurrent or sizes.model)
    return State(convolution + recurrent, group_bytes, group_count, checkpoints=1)


def _expanded(text: Fields) -> int:
    """Falcon-H1 may state the width itself."""
    return text.count("mamba_d_ssm") or _need(text, "mamba_expand") * _need(text, "hidden_size")


def _falcon_and_granite(text: Fields, sizes: ValueBytes) -> State:
    inner = _expanded(text)
    width = text.count("mamba_d_head")
    heads_width = inner if width is None else _need(text, "mamba_n_heads") * width
    return _mamba_2(text, sizes, inner, heads_width, "mamba_d_state", "mamba_n_groups", "mamba_d_conv")


def _nemotron(text: Fields, sizes: ValueBytes) -> State:
    """The only family whose recurrent state is float32 unless it says otherwise."""
    inner = _need(text, "mamba_num_heads") * _need(text, "mamba_head_dim")
    size = sizes.recurrent or FLOAT_BYTES.get(text.text("mamba_ssm_cache_dtype") or "float32", 4)
    own = ValueBytes(sizes.model, sizes.kv, size)
    return _mamba_2(text, own, inner, inner, "ssm_state_size", "n_groups", "conv_kernel")


def _zamba(text: Fields, sizes: ValueBytes) -> State:
    inner = _expanded(text)
    return _mamba_2(text, sizes, inner, inner, "mamba_d_state", "mamba_ngroups", "mamba_d_conv")


_BY_FIELD: dict[str, Callable[[Fields, ValueBytes], State]] = {
    "linear_num_value_heads": _gated_delta_net,
    "linear_attn_config": _kimi_delta,
    "conv_L_cache": _short_convolution,
    "mamba_num_heads": _nemotron,
    "n_mamba_heads": _zamba,
    "mamba_n_heads": _falcon_and_granite,
    "mamba_d_state": _jamba,
    "state_size": _mamba,
}
"""The first field that a family has tells how its state is made."""
