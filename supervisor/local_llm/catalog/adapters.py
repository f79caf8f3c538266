"""LoRA adapters: a folder with adapter_config.json is a model of its own, served by its base's worker.

A folder says what it wants (`adapter_folder`); whether that is there is known once all folders have been
looked into.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from local_llm.arguments import in_config_file, is_off, is_set
from local_llm.catalog.adapter_file import misfit
from local_llm.catalog.adapter_folder import CONFIG, WEIGHTS, AdapterFolder, shown
from local_llm.catalog.card import WRITES_TEXT, Adapter, BrokenModel, Engine, ModelCard
from local_llm.catalog.files import Unservable, look, printable
from local_llm.catalog.names import Naming, Outcome, name_models
from local_llm.settings import Settings

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


def join(found: Iterable[Found], settings: Settings) -> Naming:
    """Names everything, and brings adapters and their bases together.

    Args:
        found: what was found, sorted.
        settings: the aliases, and the arguments for bases.
    """
    aliases = settings.all_aliases
    adapters: list[AdapterFolder] = []
    others: list[Outcome] = []
    for each in found:
        if isinstance(each, AdapterFolder):
            adapters.append(each)
        else:
            others.append(each)
    if not adapters:
        return name_models(others, aliases)
    bases = _Bases(name_models(others, aliases), frozenset(_last(each.id).casefold() for each in adapters))
    joined = [_with_base(each, bases, settings) for each in adapters]
    named = name_models(sorted((*others, *joined), key=lambda each: (each.id, each.path)), aliases)
    return _tied(named, {each.id: each for each in adapters})


@dataclass(frozen=True)
class _Bases:
    """What adapters look their bases up in, made once for all of them: there can be hundreds.

    Attributes:
        naming: of everything but adapters.
        adapters: last parts of the adapters' own ids, without case.
    """

    naming: Naming
    adapters: frozenset[str]

    @functools.cached_property
    def by_place(self) -> Mapping[tuple[int, int], ModelCard]:
        """Device and inode of its folder -> model."""
        found: dict[tuple[int, int], ModelCard] = {}
        for each in self.naming.models:
            status = look(str(each.path))
            if status is not None:
                found.setdefault((status.st_dev, status.st_ino), each)
        return found

    @functools.cached_property
    def alike(self) -> Mapping[str, Mapping[str, Outcome]]:
        """Name or last part without case -> the models that it may mean, by id."""
        found: dict[str, dict[str, Outcome]] = {}
        short = ((_last(each.id), each) for each in self.naming.models)
        for name, each in (*self.naming.names.items(), *short):
            found.setdefault(name.casefold(), {})[each.id] = each
        return found


def _with_base(adapter: AdapterFolder, bases: _Bases, settings: Settings) -> Outcome:
    try:
        base = _base(adapter.wants, bases)
        _refuse_unwanted(base, settings)
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


def _base(wants: str, bases: _Bases) -> ModelCard:
    """The base that an adapter wants.

    Raises:
        Unservable: it is not there, not certain, or none that takes adapters.
    """
    found = _named(wants, bases)
    if found is None and _last(wants).casefold() in bases.adapters:
        raise Unservable(f"its base {shown(wants)} is an adapter itself")
    if found is None:
        raise Unservable(
            f"its base {shown(wants)} is not in the folder: download it, or if it is there under another id, "
            f"give that one the alias {shown(wants)} in the settings"
        )
    if isinstance(found, BrokenModel):
        raise Unservable(f"its base {found.id!r} cannot be served: {found.reason}")
    if found.kind not in WRITES_TEXT:
        raise Unservable(
            f"its base {found.id!r} is of kind {found.kind.value}, for which no adapters are served"
        )
    if found.engine is not Engine.VLLM:
        raise Unservable(f"its base {found.id!r} is run by {found.engine.value}; adapters need vLLM")
    return found


def _refuse_unwanted(base: ModelCard, settings: Settings) -> None:
    """Where the user's arguments keep adapters out of a base's worker, it would not know this one's name."""
    said = (*settings.engines.vllm.args, *settings.model_settings(base.id).args)
    flag = flag_against([*in_config_file(said), *said])
    if flag is not None:
        raise Unservable(f"the settings' arguments for its base {base.id!r} say {flag}")


def _refuse_misfit(adapter: AdapterFolder, base: ModelCard) -> None:
    """One made for a larger or smaller model of the same name would keep its base from starting."""
    if base.architecture in _WITHOUT_ADAPTERS:
        raise Unservable(f"vLLM serves no adapters for {base.architecture}, as {base.id!r} is")
    version = f"{base.path} {base.fingerprint}"
    if version not in adapter.compared:
        adapter.compared.clear()
        files = [str(base.path / name) for name in base.weights]
        adapter.compared[version] = misfit(str(adapter.path / WEIGHTS), files)
    different = adapter.compared[version]
    if different is not None:
        raise Unservable(f"it was made for another model than {base.id!r}: {different}")


def _named(wants: str, bases: _Bases) -> Outcome | None:
    """By id, alias or path, then by the last part; without case too, as the Hub takes names."""
    found = bases.naming.names.get(wants)
    if found is None and Path(wants).is_absolute():
        status = look(wants)
        found = bases.by_place.get((status.st_dev, status.st_ino)) if status is not None else None
    if found is not None:
        return found
    snapshot = _HUB_SNAPSHOT.search(wants)
    if snapshot:
        wants = snapshot["id"].replace("--", "/", 1)
    return _called(wants, wants, bases) or _called(_last(wants), wants, bases)


def _called(name: str, wants: str, bases: _Bases) -> Outcome | None:
    """What has that very name, or else the only one that has it but for case.

    Raises:
        Unservable: several have.
    """
    if name in bases.naming.names:
        return bases.naming.names[name]
    alike = bases.alike.get(name.casefold(), {})
    served = sorted(each.id for each in alike.values() if isinstance(each, ModelCard))
    if len(served) > 1:
        raise Unservable(
            f"its base {shown(wants)} could be {', '.join(served[:_NAMES_SHOWN])}: give one of them the "
            f"alias {shown(wants)} in the settings"
        )
    if served:
        return alike[served[0]]
    return next(iter(alike.values())) if len(alike) == 1 else None


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _tied(naming: Naming, adapters: Mapping[str, AdapterFolder]) -> Naming:
    """Every base with its adapters, every adapter with that very card of its base."""
    served: dict[str, list[Adapter]] = {}
    for card in naming.models:
        if card.base is not None:
            adapter = adapters[card.id].served_as((card.id, *card.aliases))
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


def flag_against(user_args: Sequence[str]) -> str | None:
    """The flag of the user's that leaves no place for adapters of the models folder; None if none does."""
    if is_set(user_args, "--lora-modules"):
        return "--lora-modules"
    return "--no-enable-lora" if is_off(user_args, "--enable-lora") else None


def folders_of(card: ModelCard) -> Sequence[Path]:
    """The folders that must be as they were for a card to be true: its base's and that one's adapters'."""
    base = card.runs_as
    return (base.path, *(adapter.path for adapter in base.adapters))
