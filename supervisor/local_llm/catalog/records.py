"""From a location to a model card, or to the reason why there is none."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local_llm.arguments import value_of
from local_llm.catalog import gguf
from local_llm.catalog.adapter_folder import AdapterFolder, is_adapter, read_adapter
from local_llm.catalog.adapters import Found
from local_llm.catalog.card import CHATS, BrokenModel, Engine, Kind, ModelCard
from local_llm.catalog.chat_templates import UNREAD, read_given
from local_llm.catalog.engine_choice import with_engine_that_has_it
from local_llm.catalog.families import FamilySigns
from local_llm.catalog.files import Folder, Unservable, Watch, printable
from local_llm.catalog.folder import Facts, examine, is_unfinished
from local_llm.catalog.further import commanded_card, gguf_card
from local_llm.catalog.kinds import decide
from local_llm.catalog.vocabulary import certainly_lacks
from local_llm.catalog.walk import Location
from local_llm.settings import Settings
from local_llm.settings_effect import takes_context

_LONGEST_REASON = 500
_PICKLED = (
    "it has only pickled weights ({}), which can run code when they are loaded; convert them to safetensors, "
    "or allow them: models: {{{}: {{allow_pickle: true}}}}"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """What was found at a location, and what to look at to know whether that still holds.

    Attributes:
        location: where.
        outcome: the card, its aliases still missing, or the reason why there is none; an adapter's card
            comes once its base is known.
        folders: those that were looked into.
    """

    location: Location
    outcome: Found
    folders: tuple[Folder, ...]

    def front_holds(self) -> bool:
        """Whether the folder and its small files are certainly unchanged: a few stat calls."""
        return self.location.order.holds() and all(folder.front.holds() for folder in self.folders)

    def holds(self) -> bool:
        """The same, weight files included, which can be many."""
        return self.front_holds() and all(folder.weights.holds() for folder in self.folders)

    def watches(self) -> Iterator[Watch]:
        """All that `holds` asks."""
        yield self.location.order
        for folder in self.folders:
            yield folder.front
            yield folder.weights


def examine_location(location: Location, settings: Settings) -> Record:
    """Looks into a location's folders until one is complete. Never raises: one bad folder hides no other."""
    looked_at: list[Folder] = []
    try:
        outcome = _outcome(location, settings, looked_at)
    except Exception as error:  # a bulkhead: the other models stay served
        log.exception("model %s: its folder could not be examined", location.id)
        outcome = _broken(location, f"examining its folder failed: {type(error).__name__}")
    return Record(location, outcome, tuple(looked_at))


def _outcome(location: Location, settings: Settings, looked_at: list[Folder]) -> Found:
    """As `examine_location`, without the bulkhead; folders that it opens are added to `looked_at`."""
    if location.problem is not None:
        return _broken(location, location.problem)
    if not location.folders:
        return _commanded(location, settings)
    reasons: list[str] = []
    for path in location.folders:
        looked_at.append(Folder(path))
        found = _look_into(looked_at[-1], location, settings, reasons)
        if not isinstance(found, str):
            return found
        reasons.append(found)
    return _broken(location, reasons[0])


def _look_into(
    folder: Folder, location: Location, settings: Settings, reasons: Sequence[str]
) -> ModelCard | AdapterFolder | str:
    """What it is, or the reason why it is nothing; `reasons` are those of the folders before this one."""
    chosen = settings.model_settings(location.id)
    try:
        folder.list()
        if gguf.is_gguf_folder(folder.names):
            return gguf_card(folder, location, chosen)
        if is_adapter(folder.names) and chosen.engine is not Engine.COMMAND:
            return _adapter(folder, location)
        facts = examine(folder, location.id.rpartition("/")[2], downloading=location.downloading)
        return _card(location, folder, facts, settings, _fallback(location, folder.path, reasons))
    except Unservable as error:
        # A command may run what we do not; what is still on its way, it does not run either.
        if chosen.engine is Engine.COMMAND and not is_unfinished(folder.path, folder.names):
            return commanded_card(location, chosen, folder)
        return _clean(str(error))


def _adapter(folder: Folder, location: Location) -> AdapterFolder:
    try:
        return read_adapter(folder, location.id)
    except Unservable as error:
        if location.downloading or is_unfinished(folder.path, folder.names):
            raise Unservable(f"download incomplete: {error}") from error
        raise


def _commanded(location: Location, settings: Settings) -> ModelCard | BrokenModel:
    try:
        return commanded_card(location, settings.model_settings(location.id))
    except Unservable as error:
        return _broken(location, _clean(str(error)))


def _card(
    location: Location, folder: Folder, facts: Facts, settings: Settings, fallback: tuple[str, ...]
) -> ModelCard:
    chosen = settings.model_settings(location.id)
    if facts.pickled and chosen.engine is not Engine.COMMAND and not chosen.allow_pickle:
        raise Unservable(_PICKLED.format(facts.weights[0], json.dumps(location.id, ensure_ascii=False)))
    signs = facts.signs
    family_signs = _family_signs(folder, facts, (*settings.engines.vllm.args, *chosen.args))
    if signs.template is None:
        built_in = settings.known_families.built_in_template(family_signs)
        given = "the settings give --chat-template" if family_signs.templates else None
        signs = replace(signs, template=given or built_in)
    decision = decide(
        signs,
        default_engine=settings.default_engine,
        chosen_engine=chosen.engine,
        chosen_kind=chosen.kind,
    )
    if not signs.mistral_format:
        decision = with_engine_that_has_it(
            decision, signs.architecture, settings, chosen, own_code=facts.own_code
        )
    length = facts.context_length
    if decision.kind is Kind.EMBEDDING and facts.sentence_length is not None:
        length = facts.sentence_length
    if chosen.context is not None and takes_context(decision.engine, decision.kind):
        length = chosen.context
    return ModelCard(
        id=location.id,
        path=Path(folder.path),
        kind=decision.kind,
        engine=decision.engine,
        evidence=(*decision.evidence, *facts.notes, *fallback),
        size_bytes=facts.size_bytes,
        context_length=length,
        architecture=signs.architecture,
        created=facts.created,
        fingerprint=facts.fingerprint,
        weights=facts.weights,
        family=settings.known_families.match(family_signs) if decision.kind in CHATS else None,
    )


def _family_signs(folder: Folder, facts: Facts, args: Sequence[str]) -> FamilySigns:
    """What tells a model's family; a template that the user's arguments give counts in place of its own."""
    given = value_of(args, "--chat-template")
    templates = facts.templates.texts if given is None else (read_given(folder, given) or UNREAD,)
    return FamilySigns(
        name=facts.signs.name,
        architecture=facts.signs.architecture,
        model_type=facts.model_type,
        templates=templates,
        response_fields=facts.templates.response_fields,
        files=folder.names,
        lacks=functools.partial(certainly_lacks, folder),
    )


def _fallback(location: Location, path: str, reasons: Sequence[str]) -> tuple[str, ...]:
    """Evidence that another snapshot than the first is served."""
    if not reasons:
        return ()
    first, served = (Path(each).name[:12] for each in (location.folders[0], path))
    return (f"revision {first} cannot be served ({reasons[0]}), so {served} is",)


def _broken(location: Location, reason: str) -> BrokenModel:
    return BrokenModel(location.id, Path(location.path), reason)


def _clean(reason: str) -> str:
    """A reason may quote file names and fields, which can hold anything: it is made printable and short."""
    return printable(reason[:_LONGEST_REASON])
