"""LoRA adapters: a folder with adapter_config.json is a model of its own, served by its base's worker.

A folder says what it wants (`adapter_folder`); whether that is there is known once all folders have been
looked into.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from local_llm.catalog.adapter_file import misfit
from local_llm.catalog.adapter_folder import CONFIG, WEIGHTS, AdapterFolder, shown
from local_llm.catalog.card import Adapter, BrokenModel, Engine, Kind, ModelCard
from local_llm.catalog.files import Unservable, printable
from local_llm.catalog.names import Naming, Outcome, name_models

_BASE_KINDS = (Kind.CHAT, Kind.BASE, Kind.VISION_LANGUAGE)
_HUB_SNAPSHOT = re.compile(r"models--(?P<id>[^/]+)/snapshots(/|$)")
_NAMES_SHOWN = 4

# Language models in the registry of vLLM 0.32 whose class is not one of `SupportsLoRA`.
_WITHOUT_ADAPTERS = frozenset(
    [
        "AriaForConditionalGeneration",
        "BeeForConditionalGeneration",
        "BloomForCausalLM",
        "Cohere2MoeForCausalLM",
        "Cohere2VisionForConditionalGeneration",
        "DbrxForCausalLM",
        "DeepseekVLV2ForCausalLM",
        "FalconForCausalLM",
        "FalconMambaForCausalLM",
        "GPT2LMHeadModel",
        "GPTJForCausalLM",
        "Gemma3nForCausalLM",
        "Gemma3nForConditionalGeneration",
        "KananaVForConditionalGeneration",
        "KimiK25ForConditionalGeneration",
        "KimiVLForConditionalGeneration",
        "LlavaOnevision2ForConditionalGeneration",
        "LlavaOnevisionForConditionalGeneration",
        "Mamba2ForCausalLM",
        "MambaForCausalLM",
        "MiMoV2FlashForCausalLM",
        "MiMoV2ForCausalLM",
        "Moondream3ForCausalLM",
        "OrionForCausalLM",
        "Ovis",
        "Ovis2_5",
        "PaddleOCRVLForConditionalGeneration",
        "Phi3VForCausalLM",
        "Phi4ForCausalLMV",
        "Qwen2AudioForConditionalGeneration",
        "SkyworkR1VChatModel",
        "StableLmForCausalLM",
        "Step1ForCausalLM",
        "Step3TextForCausalLM",
        "Step3VLForConditionalGeneration",
        "Step3p5ForCausalLM",
        "Zamba2ForCausalLM",
    ]
)

Found: TypeAlias = ModelCard | BrokenModel | AdapterFolder


def join(found: Iterable[Found], aliases: Mapping[str, str]) -> Naming:
    """Names everything, and brings adapters and their bases together.

    Args:
        found: what was found, sorted.
        aliases: the settings', alias -> id.
    """
    adapters: list[AdapterFolder] = []
    others: list[Outcome] = []
    for each in found:
        if isinstance(each, AdapterFolder):
            adapters.append(each)
        else:
            others.append(each)
    if not adapters:
        return name_models(others, aliases)
    bases = name_models(others, aliases)
    joined = [_with_base(each, bases, {other.id for other in adapters}) for each in adapters]
    named = name_models(sorted((*others, *joined), key=lambda each: (each.id, each.path)), aliases)
    return _tied(named, {each.id: each for each in adapters})


def _with_base(adapter: AdapterFolder, bases: Naming, adapter_ids: Collection[str]) -> Outcome:
    try:
        base = _base(adapter.wants, bases, adapter_ids)
        _refuse_misfit(adapter, base)
    except Unservable as error:
        return BrokenModel(adapter.id, adapter.path, printable(str(error)))
    evidence = [f"{CONFIG}: LoRA of {base.id}, rank {adapter.rank}"]
    if adapter.has_template:
        evidence.append("its own chat template is not used: vLLM takes its base's")
    return ModelCard(
        id=adapter.id,
        path=adapter.path,
        kind=base.kind,
        engine=base.engine,
        evidence=tuple(evidence),
        size_bytes=adapter.size_bytes,
        context_length=base.context_length,
        architecture=base.architecture,
        created=adapter.created,
        fingerprint=adapter.fingerprint,
        weights=(WEIGHTS,),
        base=base,
    )


def _base(wants: str, bases: Naming, adapter_ids: Collection[str]) -> ModelCard:
    """The base that an adapter wants.

    Raises:
        Unservable: it is not there, not certain, or none that takes adapters.
    """
    found = _named(wants, bases)
    wanted = shown(wants)
    if found is None and _last(wants) in {_last(each) for each in adapter_ids}:
        raise Unservable(f"its base {wanted} is an adapter itself")
    if found is None:
        raise Unservable(
            f"its base {wanted} is not in the folder: download it, or if it is there under another id, give "
            f"that one the alias {wanted} in the settings"
        )
    if isinstance(found, BrokenModel):
        raise Unservable(f"its base {found.id!r} cannot be served: {found.reason}")
    if found.kind not in _BASE_KINDS:
        raise Unservable(
            f"its base {found.id!r} is of kind {found.kind.value}, for which no adapters are served"
        )
    if found.engine is not Engine.VLLM:
        raise Unservable(f"its base {found.id!r} is run by {found.engine.value}; adapters need vLLM")
    return found


def _refuse_misfit(adapter: AdapterFolder, base: ModelCard) -> None:
    """One made for a larger or smaller model of the same name would keep its base from starting."""
    if base.architecture in _WITHOUT_ADAPTERS:
        raise Unservable(f"vLLM serves no adapters for {base.architecture}, as {base.id!r} is")
    files = tuple(str(base.path / name) for name in base.weights)
    different = _misfit(str(adapter.path / WEIGHTS), files, (adapter.fingerprint, base.fingerprint))
    if different is not None:
        raise Unservable(f"it was made for another model than {base.id!r}: {different}")


@functools.lru_cache(maxsize=256)
def _misfit(weights: str, base_files: Sequence[str], _versions: tuple[str, str]) -> str | None:
    return misfit(weights, base_files)


def _named(wants: str, bases: Naming) -> Outcome | None:
    """By id, alias or path, then by the last part, which must be that of one model only."""
    if wants in bases.names:
        return bases.names[wants]
    if Path(wants).is_absolute():
        here = next((each for each in bases.models if _same_place(each.path, wants)), None)
        if here is not None:
            return here
    snapshot = _HUB_SNAPSHOT.search(wants)
    if snapshot:
        wants = snapshot["id"].replace("--", "/", 1)
    found = bases.names.get(wants) or bases.names.get(_last(wants))
    candidates = sorted(each.id for each in bases.models if _last(each.id) == _last(wants))
    if found is None and len(candidates) > 1:
        raise Unservable(
            f"its base {shown(wants)} could be {', '.join(candidates[:_NAMES_SHOWN])}: give one of them the "
            f"alias {shown(wants)} in the settings"
        )
    return found


def _same_place(path: Path, other: str) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _tied(naming: Naming, adapters: Mapping[str, AdapterFolder]) -> Naming:
    """Every base with its adapters, every adapter with that very card of its base."""
    served: dict[str, list[Adapter]] = {}
    for card in naming.models:
        if card.base is not None:
            names = (card.id, *card.aliases)
            adapter = Adapter(names, card.path, adapters[card.id].rank, card.fingerprint)
            served.setdefault(card.base.id, []).append(adapter)
    tied: dict[str, Outcome] = {
        card.id: replace(card, adapters=tuple(served[card.id])) for card in naming.models if card.id in served
    }
    for card in naming.models:
        base = None if card.base is None else tied[card.base.id]
        if isinstance(base, ModelCard):
            tied[card.id] = replace(card, base=base)
    return replace(
        naming,
        models=tuple(
            each for card in naming.models if isinstance(each := tied.get(card.id, card), ModelCard)
        ),
        names={name: tied.get(each.id, each) for name, each in naming.names.items()},
    )


def folders_of(card: ModelCard) -> Sequence[Path]:
    """The folders that must be as they were for a card to be true: its base's and that one's adapters'."""
    base = card.runs_as
    return (base.path, *(adapter.path for adapter in base.adapters))
