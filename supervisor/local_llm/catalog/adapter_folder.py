"""The folder of a LoRA adapter: what it wants, and whether vLLM would take it.

What vLLM would refuse is refused here, with the reason: a worker that is given one bad adapter does not
start, and its base with it. Facts on vLLM are from `lora/peft_helper.py`, `lora/utils.py` and
`config/lora.py` of 0.32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_llm.catalog.adapter_file import check_tensors
from local_llm.catalog.card import Adapter
from local_llm.catalog.files import Folder, Unservable, printable

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt")
_WHOLE = (".safetensors", ".safetensors.index.json")
_WHOLE_PICKLES = (".bin", ".bin.index.json")

LARGEST_RANK = 512
"""Of vLLM's `--max-lora-rank`."""

# Those that set an adapter's first weights and leave the base's alone.
_PLAIN_STARTS = frozenset(("gaussian", "eva", "orthogonal", "mica", "lora_ga"))
_UNSUPPORTED: Mapping[str, str] = {
    "use_dora": "it is a DoRA adapter",
    "lora_bias": "it has biases (lora_bias)",
    "modules_to_save": "it replaces whole layers of its base (modules_to_save)",
    "alora_invocation_tokens": "it is an Activated LoRA",
    "layer_replication": "it repeats layers of its base (layer_replication)",
    "use_bdlora": "it is a block-diagonal LoRA",
    "use_qalora": "it is a QALoRA adapter",
}
_LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """A complete adapter, whose base is still to be found.

    Attributes:
        id: ``name`` or ``org/name``.
        path: its folder.
        wants: its base, as adapter_config.json calls it: an id, or a path on whatever machine made it.
        rank: the largest of its matrices.
        has_template: a chat template lies beside it.
        size_bytes: of its weights.
        created: modification time of adapter_config.json, seconds since the epoch.
        fingerprint: changes with its files.
        compared: how it differs from the base that it was last compared with, by that one's fingerprint
            (None: it does not); headers are read once, not at every scan.
    """

    id: str
    path: Path
    wants: str
    rank: int
    has_template: bool
    size_bytes: int
    created: int
    fingerprint: str
    compared: dict[str, str | None] = field(default_factory=dict, compare=False, repr=False)
    _served: dict[tuple[str, ...], Adapter] = field(default_factory=dict, compare=False, repr=False)

    def served_as(self, names: tuple[str, ...]) -> Adapter:
        """What its base's card says of it; for the same names the same object as before.

        Each of n adapters has a base that has n of them, and cards are compared at every scan: comparing
        what is the same object costs next to nothing.

        Args:
            names: what it answers to, its id first.
        """
        if names not in self._served:
            self._served.clear()
            self._served[names] = Adapter(names, self.path, self.rank, self.fingerprint)
        return self._served[names]


def is_adapter(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is an adapter, and not a model that came of one."""
    if CONFIG not in names:
        return False
    return not any(
        (name.endswith(_WHOLE) and not name.startswith("adapter_model"))
        or (name.startswith("pytorch_model") and name.endswith(_WHOLE_PICKLES) and "config.json" in names)
        for name in names
    )


def read_adapter(folder: Folder, model_id: str) -> AdapterFolder:
    """Reads an adapter's folder.

    Args:
        folder: to look into; few files, all watched as small ones, since trainers write in place.
        model_id: the adapter's.

    Raises:
        Unservable: it is incomplete, damaged, or none that vLLM serves.
    """
    config = folder.read_object(CONFIG)
    rank = _rank(config)
    _refuse_unsupported(config)
    wants = config.get("base_model_name_or_path")
    if not isinstance(wants, str) or not wants.strip():
        raise Unservable(f"{CONFIG} does not name its base (base_model_name_or_path)")
    size_bytes = _weigh(folder)
    check_tensors(folder.at(WEIGHTS), rank)
    changed = folder.front.see(folder.at(CONFIG))
    return AdapterFolder(
        id=model_id,
        path=Path(folder.path),
        wants=wants.strip(),
        rank=rank,
        has_template="chat_template.jinja" in folder.names,
        size_bytes=size_bytes,
        created=int(changed.st_mtime) if changed else 0,
        fingerprint=folder.fingerprint(),
    )


def _rank(config: Mapping[str, object]) -> int:
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind.upper() != "LORA":
        raise Unservable(f"it is an adapter of type {shown(kind)}; only LoRA is served")
    patterns = config.get("rank_pattern")
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks):
        raise Unservable(f"the rank in {CONFIG} is {shown(config.get('r'))}, not a positive number")
    largest = max(rank for rank in ranks if isinstance(rank, int))
    if largest > LARGEST_RANK:
        raise Unservable(f"its rank is {largest}, and vLLM serves {LARGEST_RANK} at most")
    return largest


def _refuse_unsupported(config: Mapping[str, object]) -> None:
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise Unservable(f"{what}, which vLLM does not serve")
    if config.get("bias", "none") != "none":
        raise Unservable(f"it has biases (bias: {shown(config['bias'])}), which vLLM does not serve")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        raise Unservable(
            f"it was made with init_lora_weights={shown(start)}, which changes its base too: convert it to "
            "a plain LoRA (PEFT: save_pretrained with path_initial_model_for_weight_conversion)"
        )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise Unservable(f"{CONFIG} has no lora_alpha")
    if not isinstance(config.get("target_modules"), list | str):
        raise Unservable(f"{CONFIG} has no target_modules")


def _weigh(folder: Folder) -> int:
    if WEIGHTS not in folder.names:
        pickle = next((name for name in _PICKLES if name in folder.names), None)
        if pickle is not None:
            raise Unservable(f"its weights are a Python pickle ({pickle}); safetensors are needed")
        raise Unservable(f"download incomplete: {WEIGHTS} is missing")
    status = folder.front.see(folder.at(WEIGHTS))
    return status.st_size if status is not None else 0


def shown(value: object) -> str:
    """A field of a file of unknown origin, for a message."""
    text = value if isinstance(value, str) else repr(value)
    return printable(text[:_LONGEST_SHOWN])
