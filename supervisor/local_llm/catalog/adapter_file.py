"""What is in an adapter's weight file, and whether it fits its base, by the headers of both alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from local_llm.catalog.files import Unservable, printable, read_start
from local_llm.footprint.safetensors import Tensor, tensors

# What vLLM's `parse_fine_tuned_lora_name` and `is_base_embedding_weights` take.
_KNOWN = re.compile(
    r".\.lora_[AB]\.weight$|\.lora_embedding_[AB]$|\.(embed_tokens|lm_head)\.base_layer\.weight$"
)
_MATRIX = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Quantized weights have shapes of their own.
_PLAIN = frozenset(("F32", "F16", "BF16"))
_LFS_POINTER = b"version https://git-lfs"


def check_tensors(path: str, rank: int) -> None:
    """That the file is complete, and holds what vLLM takes for a LoRA.

    Args:
        path: of adapter_model.safetensors.
        rank: the largest that adapter_config.json names.

    Raises:
        Unservable: it is not, or does not.
    """
    found = False
    for tensor in _tensors(path):
        found = True
        if not _KNOWN.search(tensor.name):
            name = printable(tensor.name[:100])
            raise Unservable(f"its weights hold {name}, which is no part of a plain LoRA")
        matrix = _MATRIX.fullmatch(tensor.name)
        if matrix and matrix["side"] == "A" and len(tensor.shape) == 2 and tensor.shape[0] > rank:
            raise Unservable(f"its matrices have rank {tensor.shape[0]}, and adapter_config.json says {rank}")
    if not found:
        raise Unservable("its weights hold no tensor")


def _tensors(path: str) -> Iterator[Tensor]:
    try:
        yield from tensors(path)
    except Unservable as error:
        try:
            pointer = read_start(path, len(_LFS_POINTER)) == _LFS_POINTER
        except (OSError, Unservable):
            pointer = False
        if pointer:
            raise Unservable(
                "its weights are a Git LFS pointer, not the file itself: run `git lfs pull`"
            ) from error
        raise Unservable(f"download incomplete or damaged: its weight file {error}") from error


def misfit(path: str, base_files: Sequence[str]) -> str | None:
    """How an adapter's matrices differ from its base's, for people; None if they do not, or nobody knows.

    One module is compared: adapters of a model of another size differ in each.

    Args:
        path: of adapter_model.safetensors.
        base_files: the base's weight files.
    """
    wanted: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in _tensors(path):
        matrix = _MATRIX.fullmatch(tensor.name)
        if matrix and len(tensor.shape) == 2:
            wanted.setdefault(f"{matrix['module']}.weight", {})[matrix["side"]] = tensor.shape
    for file in base_files:
        try:
            found = next((each for each in tensors(file) if each.name in wanted), None)
        except Unservable:  # the base's own loading will tell
            return None
        if found is not None:
            return _difference(found, wanted[found.name])
    return None


def _difference(base: Tensor, sides: dict[str, tuple[int, ...]]) -> str | None:
    if base.dtype not in _PLAIN or len(base.shape) != 2 or set(sides) != {"A", "B"}:
        return None
    fits = (sides["B"][0], sides["A"][1])
    if fits == base.shape:
        return None
    return f"{printable(base.name[:100])} has shape {list(base.shape)}, and it fits {list(fits)}"
