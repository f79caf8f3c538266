"""What is known of the memory that a model needs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_llm.arguments import value_of
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.footprint.context import longest_context
from local_llm.footprint.fields import Fields, read_object, text_fields
from local_llm.footprint.kv_cache import KvCache, Scheme, kv_cache
from local_llm.footprint.layers import Attention, Layer, State, UnknownLayers, ValueBytes
from local_llm.footprint.model_layers import attention_heads, layers_of
from local_llm.footprint.quantization import Quantization, quantization_of
from local_llm.footprint.weights import FLOAT_BYTES, Loading, Weights, weigh_loaded
from local_llm.settings import Settings

_POOLING = frozenset((Kind.EMBEDDING, Kind.RERANKER, Kind.CLASSIFIER))
_HALF_BYTES, _WHOLE_BYTES = 2, 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the language model that matter to tensor parallelism and to activations; 0 if not known.

    Attributes:
        heads: of attention queries.
        kv_heads: the fewest that a layer has of keys and values; 0 for a latent cache.
        hidden: width of a token's vector.
        intermediate: width of the feed-forward part.
        vocabulary: number of tokens.
    """

    heads: int = 0
    kv_heads: int = 0
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model needs.

    Attributes:
        weights: once loaded.
        layers: what each layer keeps for a request, in vLLM; none for other engines, or if it is unknown.
        context_length: the longest that vLLM would take from the folder; None for other engines.
        shape: of the language model.
        quantization: of the weights; None without.
        notes: what is estimated or unknown, for people.
    """

    weights: Weights
    layers: tuple[Layer, ...] = ()
    context_length: int | None = None
    shape: Shape = Shape()
    quantization: Quantization | None = None
    notes: tuple[str, ...] = ()

    @property
    def kv_bytes_per_token(self) -> int | None:
        """Of all layers that keep the whole context, on all devices together; None if unknown."""
        if not self.layers:
            return None
        return sum(
            each.token_bytes(1)
            for each in self.layers
            if isinstance(each, Attention) and not self._slides(each)
        )

    @property
    def window_bytes(self) -> int:
        """Of all sliding windows of one request, once full."""
        windows = [each for each in self.layers if isinstance(each, Attention) and self._slides(each)]
        return sum(each.token_bytes(1) * (each.window or 0) for each in windows)

    def _slides(self, layer: Attention) -> bool:
        """A window as long as the context never slides: Phi-4-mini's is twice as long."""
        window = layer.window or 0
        return 0 < window < (self.context_length or window + 1)

    @property
    def state_bytes(self) -> int:
        """Of all states of fixed size of one request."""
        return sum(each.bytes_in_all for each in self.layers if isinstance(each, State))

    def kv_cache(self, scheme: Scheme) -> KvCache | None:
        """As vLLM would make it; None if unknown."""
        return kv_cache(self.layers, scheme) if self.layers else None


def footprint_of(card: ModelCard, settings: Settings, *, on_gpu: bool) -> Footprint:
    """Reads the headers of the model's files. For a thread: there may be many, far away.

    Args:
        card: of the model; of an adapter, its base's is taken.
        settings: all of them; dtypes and arguments matter.
        on_gpu: a GPU computes, not the CPU.

    Returns:
        What could be learned; never raises for what a folder may hold.
    """
    card = card.runs_as
    if card.engine is Engine.COMMAND:
        return Footprint(
            Weights(card.size_bytes, card.size_bytes, exact=False), notes=("its command decides",)
        )
    folder = str(card.path)
    config = read_object(folder, "config.json", "params.json")
    outer, text = Fields(config), text_fields(config)
    args = (*settings.engine_settings(card.engine).args, *settings.model_settings(card.id).args)
    quantization = quantization_of(outer, text, read_object(folder, "hf_quant_config.json"))
    said = settings.model_settings(card.id).dtype or "auto"
    model_bytes = _float_bytes(card, outer, text, value_of(args, "--dtype") or said, on_gpu=on_gpu)
    weights = weigh_loaded(card, outer, text, Loading(model_bytes, quantization is not None))
    if card.engine is not Engine.VLLM:
        return Footprint(weights, quantization=quantization, notes=weights.notes)
    fp8_cache = quantization is not None and quantization.fp8_cache
    sizes, notes = _value_bytes(args, model_bytes, fp8_cache=fp8_cache, on_gpu=on_gpu)
    layers: Sequence[Layer] = ()
    try:
        layers = layers_of(text, sizes)
    except UnknownLayers as reason:
        notes += (f"its KV cache is unknown: {reason}",)
    if quantization is not None and not quantization.supported:
        notes += (f"vLLM 0.32 does not know its quantization, {quantization.title}",)
    return Footprint(
        weights=weights,
        layers=tuple(layers),
        context_length=longest_context(text),
        shape=_shape(text, layers),
        quantization=quantization,
        notes=(*weights.notes, *notes),
    )


def _float_bytes(card: ModelCard, config: Fields, text: Fields, dtype: str, *, on_gpu: bool) -> int:
    """Of the type that weights are computed in.

    vLLM's `auto` takes the checkpoint's, and for float32 a type of two bytes, on the CPU too. Ours and
    transformers' servers compute in float32 on the CPU, and in a type of two bytes on a GPU.
    """
    known = {"half": _HALF_BYTES, "float": _WHOLE_BYTES, **FLOAT_BYTES}
    if dtype in known:
        return known[dtype]
    if card.engine is Engine.VLLM:
        return _HALF_BYTES
    if on_gpu:
        return _HALF_BYTES
    if card.kind in _POOLING:
        return _WHOLE_BYTES
    stated = config.text("dtype", "torch_dtype") or text.text("dtype", "torch_dtype") or ""
    return FLOAT_BYTES.get(stated, _WHOLE_BYTES)


def _value_bytes(
    args: Sequence[str], model_bytes: int, *, fp8_cache: bool, on_gpu: bool
) -> tuple[ValueBytes, tuple[str, ...]]:
    """Sizes in the cache, by vLLM's arguments."""
    said = value_of(args, "--kv-cache-dtype") or "auto"
    notes: tuple[str, ...] = ()
    if said.startswith("fp8") or (said == "auto" and fp8_cache):
        kv_bytes = 1
    elif said in ("auto", "float16", "bfloat16", "half"):
        kv_bytes = model_bytes if said == "auto" else _HALF_BYTES
    else:
        kv_bytes = model_bytes
        notes = (f"--kv-cache-dtype {said[:40]} is counted as if it were auto",)
    recurrent = FLOAT_BYTES.get(value_of(args, "--mamba-ssm-cache-dtype") or "")
    if recurrent is None and not on_gpu and _cpu_has_bfloat16():
        recurrent = _WHOLE_BYTES  # vLLM's fast kernels for the CPU want it so
    return ValueBytes(model_bytes, kv_bytes, recurrent), notes


@functools.cache
def _cpu_has_bfloat16() -> bool:
    """Whether the processor has AVX-512's instructions for it."""
    try:
        return " avx512_bf16" in Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return False


def _shape(text: Fields, layers: Sequence[Layer]) -> Shape:
    kv_heads = {layer.heads for layer in layers if isinstance(layer, Attention)}
    latent = kv_heads == {1} and text.count("kv_lora_rank") is not None
    return Shape(
        heads=attention_heads(text) or 0,
        kv_heads=0 if latent else min(kv_heads, default=0),
        hidden=text.count("hidden_size", "n_embd", "d_model", "dim") or 0,
        intermediate=text.count("intermediate_size", "n_inner") or 0,
        vocabulary=text.count("vocab_size") or 0,
    )
