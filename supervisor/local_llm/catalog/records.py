"""From a location to a model card, or to the reason why there is none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local_llm.catalog.card import BrokenModel, Kind, ModelCard
from local_llm.catalog.files import Folder, Unservable, printable
from local_llm.catalog.folder import Facts, examine
from local_llm.catalog.kinds import decide
from local_llm.catalog.walk import Location
from local_llm.settings import Settings

_LONGEST_REASON = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """What was found at a location, and what to look at to know whether that still holds.

    Attributes:
        location: where.
        outcome: the card, its aliases still missing, or the reason why there is none.
        folders: those that were looked into.
    """

    location: Location
    outcome: ModelCard | BrokenModel
    folders: tuple[Folder, ...]

    def front_holds(self) -> bool:
        """Whether the folder and its small files are certainly unchanged: a few stat calls."""
        return self.location.order.holds() and all(folder.front.holds() for folder in self.folders)

    def holds(self) -> bool:
        """The same, weight files included, which can be many."""
        return self.front_holds() and all(folder.weights.holds() for folder in self.folders)


def examine_location(location: Location, settings: Settings) -> Record:
    """Looks into a location's folders until one is complete. Never raises: one bad folder hides no other."""
    looked_at: list[Folder] = []
    try:
        outcome = _outcome(location, settings, looked_at)
    except Exception as error:  # a bulkhead: the other models stay served
        log.exception("model %s: its folder could not be examined", location.id)
        outcome = _broken(location, f"examining its folder failed: {type(error).__name__}")
    return Record(location, outcome, tuple(looked_at))


def _outcome(location: Location, settings: Settings, looked_at: list[Folder]) -> ModelCard | BrokenModel:
    """As `examine_location`, without the bulkhead; folders that it opens are added to `looked_at`."""
    if location.problem is not None:
        return _broken(location, location.problem)
    reasons: list[str] = []
    for path in location.folders:
        looked_at.append(Folder(path))
        found = _look_into(looked_at[-1], location, settings, reasons)
        if isinstance(found, ModelCard):
            return found
        reasons.append(found)
    return _broken(location, reasons[0])


def _look_into(
    folder: Folder, location: Location, settings: Settings, reasons: Sequence[str]
) -> ModelCard | str:
    """The card, or the reason why there is none; `reasons` are those of the folders before this one."""
    try:
        folder.list()
        facts = examine(folder, location.id.rpartition("/")[2], downloading=location.downloading)
        return _card(location, folder.path, facts, settings, _fallback(location, folder.path, reasons))
    except Unservable as error:
        return _clean(str(error))


def _card(
    location: Location, path: str, facts: Facts, settings: Settings, fallback: tuple[str, ...]
) -> ModelCard:
    chosen = settings.model_settings(location.id)
    signs = facts.signs
    if signs.template is None and _names_template(chosen.args):
        signs = replace(signs, template="the settings give --chat-template")
    decision = decide(signs, default_engine=settings.default_engine, chosen_engine=chosen.engine)
    length = facts.context_length
    if decision.kind is Kind.EMBEDDING and facts.sentence_length is not None:
        length = facts.sentence_length
    return ModelCard(
        id=location.id,
        path=Path(path),
        kind=decision.kind,
        engine=decision.engine,
        evidence=(*decision.evidence, *facts.notes, *fallback),
        size_bytes=facts.size_bytes,
        context_length=length,
        architecture=signs.architecture,
        created=facts.created,
        fingerprint=facts.fingerprint,
        weights=facts.weights,
    )


def _names_template(args: Sequence[str]) -> bool:
    return any(arg == "--chat-template" or arg.startswith("--chat-template=") for arg in args)


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
