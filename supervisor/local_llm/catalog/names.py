"""Which name means which model: ids, the settings' aliases, short names. Pure.

Where names meet, an id beats an alias, and an alias beats a short name. A name is only ever looked up in
the table made here; it never becomes part of a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from local_llm.catalog.card import BrokenModel, ModelCard

Outcome: TypeAlias = ModelCard | BrokenModel


@dataclass(frozen=True, slots=True)
class Naming:
    """Every model with its names.

    Attributes:
        models: those that can be served, with their aliases, sorted by id.
        broken: the others, sorted by id. One that another folder's id hides is among them.
        names: id, alias and short name -> model.
        warnings: aliases that mean nothing, for the log.
    """

    models: tuple[ModelCard, ...]
    broken: tuple[BrokenModel, ...]
    names: Mapping[str, Outcome]
    warnings: tuple[str, ...]


def name_models(outcomes: Iterable[Outcome], aliases: Mapping[str, str]) -> Naming:
    """Gives each model its names.

    Args:
        outcomes: what was found, sorted; of two with the same id the first that can be served gets it.
        aliases: alias -> id, or an unambiguous short name.
    """
    by_id, hidden = _one_for_each_id(outcomes)
    short = _short_names(by_id)
    given, warnings = _given_names(aliases, by_id, short)
    targets = {**short, **given, **{model_id: model_id for model_id in by_id}}
    further: dict[str, list[str]] = {}
    for name, model_id in targets.items():
        if name != model_id:
            further.setdefault(model_id, []).append(name)
    named = {
        model_id: replace(each, aliases=tuple(sorted(further.get(model_id, ()))))
        if isinstance(each, ModelCard)
        else each
        for model_id, each in by_id.items()
    }
    models = [each for each in named.values() if isinstance(each, ModelCard)]
    broken = [each for each in named.values() if isinstance(each, BrokenModel)]
    return Naming(
        models=tuple(sorted(models, key=lambda each: each.id)),
        broken=tuple(sorted((*broken, *hidden), key=lambda each: (each.id, each.path))),
        names={name: named[model_id] for name, model_id in targets.items()},
        warnings=warnings,
    )


def _one_for_each_id(outcomes: Iterable[Outcome]) -> tuple[dict[str, Outcome], Sequence[BrokenModel]]:
    chosen: dict[str, Outcome] = {}
    hidden: list[BrokenModel] = []
    for each in outcomes:
        before = chosen.setdefault(each.id, each)
        if before is each:
            continue
        if isinstance(before, BrokenModel) and isinstance(each, ModelCard):
            chosen[each.id] = each
            hidden.append(before)
        elif isinstance(each, ModelCard):
            hidden.append(BrokenModel(each.id, each.path, "another folder has the same id and is served"))
        else:
            hidden.append(each)
    return chosen, hidden


def _short_names(by_id: Mapping[str, Outcome]) -> dict[str, str]:
    """The last part of ``org/name`` where it is unambiguous: among models first, then among broken ones."""
    short: dict[str, str] = {}
    for kind in (BrokenModel, ModelCard):
        ids = [model_id for model_id, each in by_id.items() if isinstance(each, kind)]
        count = Counter(model_id.rpartition("/")[2] for model_id in ids)
        for model_id in ids:
            last = model_id.rpartition("/")[2]
            if count[last] == 1:
                short[last] = model_id
            elif kind is ModelCard:
                short.pop(last, None)
    return short


def _given_names(
    aliases: Mapping[str, str], by_id: Mapping[str, Outcome], short: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The settings' aliases that hold, and a warning for each that does not."""
    given: dict[str, str] = {}
    warnings: list[str] = []
    for alias, target in aliases.items():
        model_id = target if target in by_id else short.get(target)
        if alias in by_id:
            warnings.append(f"alias {alias!r} is left out: a model has that id")
        elif model_id is None:
            warnings.append(f"alias {alias!r} is left out: there is no model {target!r}")
        else:
            given[alias] = model_id
    return given, tuple(warnings)
