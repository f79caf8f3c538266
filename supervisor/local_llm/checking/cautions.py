"""What a person should know of a model that can be served: what it may do, and what it will not."""

from __future__ import annotations

from collections.abc import Iterator

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.own_code import how_to_allow, own_code
from local_llm.engine_settings import EngineSettings
from local_llm.footprint.fields import read_object
from local_llm.installed_vllm import installed_vllm
from local_llm.settings import Settings
from local_llm.settings_effect import without_effect_on
from local_llm.worker.family_args import family_args

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")


def cautions(card: ModelCard, settings: Settings) -> Iterator[str]:
    """One sentence each.

    Args:
        card: the model.
        settings: all of them.
    """
    yield from _without_template(card)
    yield from _pickled(card)
    yield from _remote_code(card, settings)
    yield from without_effect_on(card, settings.models)
    if card.engine is Engine.VLLM:
        yield from _generation_config(card, settings)
        yield from _unregistered_parsers(card, settings)


def _without_template(card: ModelCard) -> Iterator[str]:
    if card.kind in (Kind.CHAT, Kind.BASE) and any("no chat template" in each for each in card.evidence):
        yield (
            "It has no chat template: chat requests are refused. Give it one, "
            f'models: {{"{card.id}": {{args: [--chat-template, FILE]}}}}, or use /v1/completions.'
        )


def _pickled(card: ModelCard) -> Iterator[str]:
    if any(name.endswith(".bin") for name in card.weights):
        yield "Its weights are Python pickles (.bin), which can run code as they load; safetensors cannot."


def _remote_code(card: ModelCard, settings: Settings) -> Iterator[str]:
    named = own_code(card.path)
    if not named:
        return
    if settings.model_settings(card.id).trust_remote_code:
        files = ", ".join(sorted({file for each in named.values() for file in each}))
        yield f"It may run Python code of its folder ({files}): trust_remote_code is set."
    else:
        yield f"{how_to_allow(card.id, card.path)}. Until then the engine's own code is used, if any."


def _generation_config(card: ModelCard, settings: Settings) -> Iterator[str]:
    found = read_object(str(card.path), "generation_config.json")
    said = ", ".join(f"{key} {found[key]}" for key in _SAMPLING if isinstance(found.get(key), int | float))
    args = (*settings.engines.vllm.args, *settings.model_settings(card.id).args)
    if said and not any(arg.startswith("--generation-config") for arg in args):
        yield f"Its generation_config.json sets {said}, where a request says nothing else."


def _unregistered_parsers(card: ModelCard, settings: Settings) -> Iterator[str]:
    card = card.runs_as
    if card.family is None:
        return
    model, engine = settings.model_settings(card.id), settings.engine_settings(card.engine)
    python = model.python or (engine.python if isinstance(engine, EngineSettings) else None)
    yield from family_args(card.family, installed_vllm(python), (*engine.args, *model.args))[1]
