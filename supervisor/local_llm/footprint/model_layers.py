"""From config.json to what every layer of a model keeps for a request. Pure.

The rules are those of vLLM 0.32 and of transformers' configuration classes, which it reads configs with.
"""

from __future__ import annotations

from collections.abc import Sequence

from local_llm.footprint.fields import MOST_LAYERS, Fields
from local_llm.footprint.layers import Attention, CrossAttention, Layer, UnknownLayers, ValueBytes
from local_llm.footprint.states import state_of

FULL, WINDOW, STATE, BOTH, NOTHING = "full", "window", "state", "both", "nothing"

# Chunked attention (Llama 4) is allocated like full attention: vLLM turns the hybrid cache off for it.
_KINDS = {
    "full_attention": FULL,
    "attention": FULL,
    "global_attention": FULL,
    "chunked_attention": FULL,
    "indexed_attention": FULL,
    "deepseek_sparse_attention": FULL,
    "sliding_attention": WINDOW,
    "linear_attention": STATE,
    "mamba": STATE,
    "conv": STATE,
    "hybrid": BOTH,
    "mlp": NOTHING,
    "moe": NOTHING,
}
_NEMOTRON = {"M": STATE, "*": FULL, "-": NOTHING, "E": NOTHING}

# Every so many layers one sees the whole context, the last of each group; where layer_types are not said.
_FULL_EVERY = {
    "gemma2": 2,
    "vaultgemma": 2,
    "gpt_oss": 2,
    "gemma3_text": 6,
    "gemma4_text": 6,
    "gemma3n_text": 5,
    "cohere2": 4,
    "olmo3": 4,
    "exaone4": 4,
    "exaone_moe": 4,
    "afmoe": 4,
    "cohere2_moe": 4,
    "cwm": 4,
    "granite_swa": 4,
    "granitemoe_swa": 4,
    "muse_glimmer_text": 4,
    "gemma4_unified_text": 6,
    "diffusion_gemma_text": 6,
    "embedding_gemma2_text": 6,
}
# transformers works their layers out in ways that are not repeated here: only what config.json says counts.
_MUST_SAY = (
    "deepseek_v4",
    "glm5_next",
    "hrm_text",
    "inkling",
    "kimi_linear",
    "mimo_v2",
    "minimax_m1",
    "minimax_m3",
    "minimax_text",
    "olmo_hybrid",
    "recurrent_gemma",
    "zamba",
    "zaya",
)
# vLLM's list (`ModelArchConfigConvertorBase.is_deepseek_mla`): others with a kv_lora_rank keep whole heads.
_LATENT = frozenset(
    (
        "axk1",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "glm_moe_dsa",
        "glm4_moe_lite",
        "kimi_k2",
        "kimi_linear",
        "longcat_flash",
        "pangu_ultra_moe",
        "bailing_hybrid",
    )
)
# Their sliding_window counts only where use_sliding_window is true.
_OPTIONAL_WINDOW = ("qwen", "dots1", "smollm3", "cohere_compass", "deepseek_ocr2", "laguna", "mellum")
_INDEXED = frozenset(("deepseek_v32", "glm_moe_dsa"))
_INDEX_GROUP = 128
_INDEX_SCALE_BYTES = 4

_HEADS = ("decoder_attention_heads", "num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "n_kv_heads")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")


def layers_of(text: Fields, sizes: ValueBytes) -> Sequence[Layer]:
    """What all layers together keep; a layer may keep several things, or nothing.

    Args:
        text: config section of the language model.
        sizes: of numbers.

    Raises:
        UnknownLayers: it cannot be told.
    """
    if text.get("compress_ratios") is not None:
        raise UnknownLayers("its compressed attention is not known here")
    kinds = _kinds(text)
    shared = text.count("num_kv_shared_layers")  # the last layers use the cache of earlier ones
    kinds = kinds[: max(0, len(kinds) - shared)] if shared else kinds
    kept: list[Layer] = []
    for kind in dict.fromkeys(kinds):
        kept += kinds.count(kind) * _kept_by(kind, text, sizes)
    if text.is_true("is_encoder_decoder"):
        full = _attention(text, sizes, FULL)
        kept += len(kinds) * [CrossAttention(full.heads, full.head_bytes)]
    return kept


def attention_heads(text: Fields) -> int | None:
    """Heads of queries, which tensor parallelism shares out; None if config.json does not say."""
    return text.count(*_HEADS)


def layer_count(text: Fields) -> int:
    """How many layers the language model has.

    Raises:
        UnknownLayers: config.json does not say, or something absurd.
    """
    names = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    decoder = text.count("decoder_layers") if text.is_true("is_encoder_decoder") else None
    count = decoder or text.count(*names)
    if text.model_type == "longcat_flash" and text.count("num_layers"):
        count = 2 * (text.count("num_layers") or 0)  # each has two attention layers
    if count is None or count > MOST_LAYERS:
        raise UnknownLayers("config.json does not say how many layers it has")
    return count


def _kinds(text: Fields) -> Sequence[str]:
    """One of the five for each layer."""
    said = text.words("layer_types", "layers_block_type")
    pattern = text.text("hybrid_override_pattern")
    if pattern and len(pattern) <= MOST_LAYERS:
        return _named(pattern, _NEMOTRON)
    if said and text.model_type == "nemotron_h":  # the list's length is the number of layers
        return _named(said, _KINDS)
    count = layer_count(text)
    if said and not _ignores_layer_types(text):
        return _named(said[:count], _KINDS)
    period = text.count("attn_layer_period")
    if period:  # Jamba
        offset = text.get("attn_layer_offset")
        return [FULL if layer % period == offset else STATE for layer in range(count)]
    if text.section("linear_attn_config").get("full_attn_layers") is not None:  # Kimi Linear counts from 1
        full = frozenset(text.section("linear_attn_config").numbers("full_attn_layers"))
        return [FULL if layer + 1 in full else STATE for layer in range(count)]
    if text.get("linear_num_value_heads") is not None:  # Qwen3-Next
        return _last_of_each(text.count("full_attention_interval") or 4, STATE, count)
    if text.get("conv_L_cache") is not None:  # LFM2
        attending = frozenset(text.numbers("full_attn_idxs")) or frozenset(range(count))
        return [FULL if layer in attending else STATE for layer in range(count)]
    if text.get("mamba_n_heads") is not None:
        return [BOTH if text.model_type == "falcon_h1" else STATE] * count
    if text.get("state_size") is not None and attention_heads(text) is None:  # pure Mamba
        return [STATE] * count
    if local := text.numbers("hybrid_layer_pattern"):  # MiMo-V2
        return [WINDOW if each else FULL for each in local[:count]]
    if text.get("mamba_num_heads") is not None or _must_say(text):
        raise UnknownLayers("config.json does not say which of its layers attend to what")
    return _windowed(text, count)


def _named(names: Sequence[str], known: dict[str, str]) -> Sequence[str]:
    unknown = sorted({name for name in names if name not in known})
    if unknown:
        raise UnknownLayers(f"its layers of the kind {unknown[0][:40]!r} are not known here")
    return [known[name] for name in names]


def _ignores_layer_types(text: Fields) -> bool:
    """Qwen's classes in vLLM slide all layers or none, whatever the list says."""
    return text.model_type.startswith("qwen") and text.get("linear_num_value_heads") is None


def _must_say(text: Fields) -> bool:
    return text.model_type.startswith(_MUST_SAY) or text.model_type == "minimax"


def _windowed(text: Fields, count: int) -> Sequence[str]:
    if text.count("sliding_window") is None:
        return [FULL] * count
    every = text.count("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
    every = every or _FULL_EVERY.get(text.model_type)
    if every:
        return _last_of_each(every, WINDOW, count)
    if text.model_type.startswith(_OPTIONAL_WINDOW):
        # From layer max_window_layers on; vLLM's classes of these slide all layers or none.
        every_layer = text.get("max_window_layers") == 0
        return [WINDOW if text.is_true("use_sliding_window") and every_layer else FULL] * count
    return [WINDOW] * count


def _last_of_each(every: int, others: str, count: int) -> Sequence[str]:
    return [FULL if (layer + 1) % every == 0 else others for layer in range(count)]


def _kept_by(kind: str, text: Fields, sizes: ValueBytes) -> list[Layer]:
    if kind == NOTHING:
        return []
    if kind == STATE:
        return [state_of(text, sizes)]
    if kind == BOTH:
        return [state_of(text, sizes), _attention(text, sizes, FULL)]
    if kind == FULL and _is_latent(text):
        return _latent(text, sizes)
    return [_attention(text, sizes, kind)]


def _attention(text: Fields, sizes: ValueBytes, kind: str) -> Attention:
    window = text.count("sliding_window") if kind == WINDOW else None
    if window is not None and text.model_type in ("cohere2", "cohere2_moe"):
        window += 1
    heads = text.count("swa_num_key_value_heads") if kind == WINDOW else None
    key, value = _head_sizes(text, kind)
    if kind == FULL and text.model_type == "gemma4_text" and text.is_true("attention_k_eq_v"):
        heads = text.count("num_global_key_value_heads")
    return Attention(heads or _kv_heads(text), (key + value) * sizes.kv, window)


def _head_sizes(text: Fields, kind: str) -> tuple[int, int]:
    """Numbers in a key and in a value of one head."""
    size = _key_size(text, kind)
    if size is None:
        raise UnknownLayers("config.json does not say how large its attention heads are")
    if text.model_type.startswith("mimo_v2"):
        return size, text.count("v_head_dim") or size
    return size, size


def _key_size(text: Fields, kind: str) -> int | None:
    heads, hidden = attention_heads(text), text.count(*_HIDDEN)
    nope, rope = text.count("qk_nope_head_dim"), text.count("qk_rope_head_dim")
    if text.count("kv_lora_rank") and nope and rope:  # without the latent cache: MiniCPM3
        return nope + rope
    if text.model_type == "gemma4_text" and kind == FULL:
        return text.count("global_head_dim") or 512
    stated = text.count("attention_head_dim", "head_dim", "hidden_size_per_head", "kv_channels")
    if stated is not None or not heads or not hidden:
        return stated
    return 2 * hidden // heads if text.model_type == "zamba2" else hidden // heads or None


def _kv_heads(text: Fields) -> int:
    if text.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if text.is_true("multi_query") and not text.is_true("new_decoder_architecture"):
            return 1
    elif text.model_type == "gpt_bigcode" and text.is_true("multi_query"):
        return 1
    elif text.model_type == "dbrx":
        text = text.section("attn_config") if text.section("attn_config").count("kv_n_heads") else text
        return text.count("kv_n_heads", *_HEADS) or 1
    heads = text.count(*_KV_HEADS) or attention_heads(text)
    if heads is None:
        raise UnknownLayers("config.json does not say how many attention heads it has")
    return heads


def _is_latent(text: Fields) -> bool:
    """Whether vLLM caches one latent vector in place of heads (MLA)."""
    causal = text.get("is_causal") is not False
    return causal and text.model_type in _LATENT and text.count("kv_lora_rank") is not None


def _latent(text: Fields, sizes: ValueBytes) -> list[Layer]:
    """One vector of kv_lora_rank + qk_rope_head_dim, whole on every device; an index beside it for some."""
    rank = (text.count("kv_lora_rank") or 0) + (text.count("qk_rope_head_dim") or 0)
    kept: list[Layer] = [Attention(1, rank * sizes.kv)]
    index = text.count("index_head_dim") if text.model_type in _INDEXED else None
    if index:
        kept.append(Attention(1, index + index // _INDEX_GROUP * _INDEX_SCALE_BYTES))
    return kept
