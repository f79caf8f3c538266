"""What a model's weights take once they are loaded, from the headers of its safetensors files.

Not the size of the files: engines cast floats to the type they compute in, hold tied weights once, and
leave out what the model does not use (a prediction layer for speculative decoding, saved buffers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.files import INDEX_LIMIT_BYTES, Folder, Unservable, look
from local_llm.catalog.weights import SAFETENSORS_INDEX
from local_llm.footprint.fields import Fields
from local_llm.footprint.safetensors import Tensor, tensors

FLOAT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Of one number; by torch's names."""

_FLOATS = frozenset(("F64", "F32", "F16", "BF16"))
_FLOATS_8 = frozenset(("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"))
# Of quantized weights: kept as they are stored.
_SCALES = re.compile(r"scale|absmax|quant|zero|g_idx|codebook")

# Buffers that older versions of transformers saved; engines compute them anew.
_BUFFERS = re.compile(r"\.inv_freq$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$|position_ids$")
_LANGUAGE_LAYER = re.compile(r"^(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d{1,6})\.")
_SPECULATIVE = re.compile(r"^(?:model\.)?mtp\.")
# Heads that an encoder was trained with: an embedding model is loaded without.
_TRAINING_HEADS = re.compile(r"^(cls\.|lm_head\.|qa_outputs\.|vocab_(transform|projector|layer_norm)\.)")

_HEADS = (
    "lm_head.weight",
    "lm_head.decoder.weight",
    "proj_out.weight",
    "embed_out.weight",
    "output_projection.weight",
    "cls.predictions.decoder.weight",
)
_EMBEDDINGS = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "wte.weight",
    "shared.weight",
    "tok_embeddings.weight",
)


_WORTH_A_WORD_BYTES = 100 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """What the weights take.

    Attributes:
        file_bytes: of the weight files.
        loaded_bytes: of the parameters of the loaded model, on all devices together.
        exact: counted tensor by tensor; else estimated from the files' size.
        notes: what was assumed, for people.
    """

    file_bytes: int
    loaded_bytes: int
    exact: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loading:
    """How an engine loads weights.

    Attributes:
        float_bytes: of each number that is not quantized.
        quantized: the files hold quantized weights, which stay as they are.
    """

    float_bytes: int
    quantized: bool


def weigh_loaded(card: ModelCard, config: Fields, text: Fields, loading: Loading) -> Weights:
    """Sums what the engine will hold. Opens every weight file, once.

    Args:
        card: of the model.
        config: its config.json, outermost section.
        text: the section of its language model.
        loading: how its engine loads it.
    """
    stated_bytes = FLOAT_BYTES.get(
        text.text("dtype", "torch_dtype") or config.text("dtype", "torch_dtype") or ""
    )
    if not card.weights or not all(name.endswith(".safetensors") for name in card.weights):
        return _by_file_size(card, loading, stated_bytes, "the size of its weight files")
    try:
        found = _Counted(card, config, text, loading)
        for tensor in _all_tensors(card):
            found.add(tensor)
    except Unservable as error:
        return _by_file_size(card, loading, stated_bytes, f"the size of its files, since {error}")
    return Weights(card.size_bytes, found.total_bytes(), exact=True, notes=found.notes())


def _by_file_size(card: ModelCard, loading: Loading, stated_bytes: int | None, source: str) -> Weights:
    """transformers takes float32 where a config says nothing, and so did those who saved pickles."""
    factor = 1.0 if loading.quantized else loading.float_bytes / (stated_bytes or 4)
    notes = (f"weights estimated from {source}",)
    return Weights(card.size_bytes, int(card.size_bytes * factor), exact=False, notes=notes)


def _all_tensors(card: ModelCard) -> Iterator[Tensor]:
    """Those of all files; with an index, only those that it names, from the file that it names."""
    folder = str(card.path)
    places = _indexed(folder) if look(f"{folder}/{SAFETENSORS_INDEX}") else None
    for name in card.weights:
        try:
            for tensor in tensors(f"{folder}/{name}"):
                if places is None or places.get(tensor.name) == name:
                    yield tensor
        except Unservable as error:  # noqa: PERF203 - the name is known here
            raise Unservable(f"{name} {error}") from error


def _indexed(folder: str) -> Mapping[str, object] | None:
    places = Folder(folder).read_object(SAFETENSORS_INDEX, INDEX_LIMIT_BYTES).get("weight_map")
    return places if isinstance(places, dict) else None


class _Counted:
    """A running sum over tensors."""

    def __init__(self, card: ModelCard, config: Fields, text: Fields, loading: Loading) -> None:
        self._loading = loading
        self._encoder = card.engine is Engine.TRANSFORMERS and card.kind is Kind.EMBEDDING
        self._speculative = text.count("num_nextn_predict_layers", "mtp_num_hidden_layers") is not None
        self._layers = text.count("num_hidden_layers")
        self._tied = _is_tied(config, text)
        self._bytes = 0
        self._left_out_bytes = 0
        self._heads: list[Tensor] = []
        self._embeddings: list[Tensor] = []

    def add(self, tensor: Tensor) -> None:
        """Counts a tensor of the files."""
        if self._is_unused(tensor):
            self._left_out_bytes += tensor.size_bytes
        elif self._tied and tensor.name.endswith(_HEADS):
            self._heads.append(tensor)
        elif self._tied and tensor.name.endswith(_EMBEDDINGS):
            self._embeddings.append(tensor)
        else:
            self._bytes += self._loaded_bytes(tensor)

    def total_bytes(self) -> int:
        """Of all that were added; of tied ones of the same shape, the first counts."""
        tied: dict[tuple[int, ...], Tensor] = {}
        for tensor in (*self._embeddings, *self._heads):
            tied.setdefault(tensor.shape, tensor)
        return self._bytes + sum(map(self._loaded_bytes, tied.values()))

    def notes(self) -> tuple[str, ...]:
        """What was left out, if it is worth a word."""
        if self._left_out_bytes < max(self._bytes // 100, _WORTH_A_WORD_BYTES):
            return ()
        return (f"{self._left_out_bytes / (1 << 30):.1f} GiB of its files are not loaded",)

    def _is_unused(self, tensor: Tensor) -> bool:
        name = tensor.name
        if _BUFFERS.search(name) and (len(tensor.shape) != 1 or not name.endswith("bias")):
            return True
        if self._encoder and _TRAINING_HEADS.match(name):
            return True
        if _SPECULATIVE.match(name):
            return True
        layer = _LANGUAGE_LAYER.match(name) if self._speculative and self._layers else None
        return layer is not None and self._layers is not None and int(layer.group(1)) >= self._layers

    def _loaded_bytes(self, tensor: Tensor) -> int:
        if self._loading.quantized and _SCALES.search(tensor.name):
            return tensor.size_bytes
        if tensor.dtype in _FLOATS or (tensor.dtype in _FLOATS_8 and not self._loading.quantized):
            return tensor.count * self._loading.float_bytes
        return tensor.size_bytes


def _is_tied(config: Fields, text: Fields) -> bool:
    """Whether the output layer is the input embedding. Either section may say so, else the family does."""
    said = [each.get("tie_word_embeddings") for each in (config, text) if each.says("tie_word_embeddings")]
    return any(value is True for value in said) if said else text.is_true("tie_word_embeddings")
