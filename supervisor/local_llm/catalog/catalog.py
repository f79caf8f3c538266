"""The models there are, kept true without a restart.

What a scan saw is remembered as stamps of the files it looked at (`files.Watch`). A later look compares
the stamps and reads again only what changed: looking at 1,000 unchanged folders takes some 20 ms.
"""

from __future__ import annotations

import difflib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_llm.catalog.adapters import folders_of, join
from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.files import Watch
from local_llm.catalog.further import commanded_locations
from local_llm.catalog.names import Outcome
from local_llm.catalog.records import Record, examine_location
from local_llm.catalog.walk import Location, Walk, walk
from local_llm.errors import ModelBroken, ModelNotFound
from local_llm.settings import Settings
from local_llm.settings_effect import without_effect

log = logging.getLogger(__name__)

_NEAREST = 3
_LONGEST_NAME_COMPARED = 128
# Under load a model would be looked at some thousand times a second, for a tenth of a request's time.
_LOOK_AGAIN_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment; both sorted by id."""

    models: tuple[ModelCard, ...]
    broken: tuple[BrokenModel, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs: `local-llm models --json`, and POST /admin/rescan."""
        return {
            "models": [
                {
                    "id": card.id,
                    "aliases": list(card.aliases),
                    "kind": card.kind.value,
                    "engine": card.engine.value,
                    "size_bytes": card.size_bytes,
                    "context_length": card.context_length,
                    "architecture": card.architecture,
                    "path": str(card.path),
                    "evidence": list(card.evidence),
                }
                for card in self.models
            ],
            "broken": [
                {"id": broken.id, "path": str(broken.path), "reason": broken.reason} for broken in self.broken
            ],
        }


class Catalog:
    """Finds models by name. Not for use from several threads.

    Args:
        settings: the models folder, aliases, and what they say of single models.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # abspath, since "." and "models/.." have no last part that could be an id.
        self._models_dir = Path(os.path.abspath(settings.models_dir.expanduser()))  # noqa: PTH100
        self._walk: Walk | None = None
        self._seen = Watch()
        self._records: dict[Location, Record] = {}
        self._served: dict[Path, Record] = {}
        self._names: Mapping[str, Outcome] = {}
        self._snapshot = Snapshot((), ())
        self._warned: set[str] = set()
        self._look_again_at: dict[str, float] = {}

    def use(self, settings: Settings) -> None:
        """Takes changed settings in; folders of which they say nothing new are not looked into again."""
        before, self._settings = self._settings, settings
        # What an engine can run may depend on any of its settings.
        same = (before.engines, before.default_engine) == (settings.engines, settings.default_engine)
        self._records = {
            location: record
            for location, record in self._records.items()
            if same and before.model_settings(location.id) == settings.model_settings(location.id)
        }
        self._walk = None
        self._look_again_at.clear()

    def snapshot(self) -> Snapshot:
        """All models as they are now; the same object as before if nothing changed.

        Raises:
            ModelsDirUnreadable: the models folder is missing or cannot be listed.
        """
        if self._walk is None or not self._seen.holds():
            self._scan()
        return self._snapshot

    def find(self, name: str) -> ModelCard:
        """The model of that id or alias: a few stat calls if it is known, a new look at all if not.

        Of a known model, the folder and its small files are looked at; weights that were overwritten in
        place, and names that became ambiguous below an organisation, are noticed by the next `snapshot`.

        Raises:
            ModelNotFound: there is none; the error names the nearest.
            ModelBroken: there is one that cannot be served; the error says why.
            ModelsDirUnreadable: the models folder is missing or cannot be listed.
        """
        found = self._names.get(name)
        if not isinstance(found, ModelCard) or not self._holds(found):
            self.snapshot()
            found = self._names.get(name)
        if isinstance(found, ModelCard):
            return found
        if found is None:
            raise ModelNotFound.named(name, self._nearest(name))
        raise ModelBroken(f"The model {found.id!r} cannot be served: {found.reason}.", param="model")

    def _holds(self, card: ModelCard) -> bool:
        """Whether the card is still true, and no folder came or went at the top that may change its names."""
        now = time.monotonic()
        if now < self._look_again_at.get(card.id, 0):
            return True
        if self._walk is None or not self._walk.root.holds():
            return False
        if not all(self._served[path].front_holds() for path in folders_of(card)):
            return False
        self._look_again_at[card.id] = now + _LOOK_AGAIN_SECONDS
        return True

    def _scan(self) -> None:
        found = walk(self._models_dir)
        records: dict[Location, Record] = {}
        ids = {location.id for location in found.locations}
        for location in (*found.locations, *commanded_locations(self._settings, self._models_dir, ids)):
            known = self._records.get(location)
            if known is None or not known.holds():
                known = examine_location(location, self._settings)
            records[location] = known
        self._walk, self._records = found, records
        self._seen = Watch.of(
            (found.root, found.inner, *(watch for record in records.values() for watch in record.watches()))
        )
        self._look_again_at.clear()
        naming = join((record.outcome for record in records.values()), self._settings)
        self._names = naming.names
        self._served = {
            record.outcome.path: record
            for record in records.values()
            if not isinstance(record.outcome, BrokenModel)
        }
        unheard = without_effect(self._settings.models, naming.models, {each.id for each in naming.broken})
        for warning in (*naming.warnings, *unheard):
            if warning not in self._warned:
                self._warned.add(warning)
                log.warning("%s", warning)
        snapshot = Snapshot(naming.models, naming.broken)
        if snapshot != self._snapshot:
            self._snapshot = snapshot

    def _nearest(self, name: str) -> list[str]:
        """Names that come nearest: the same last part under an organisation, then the like in spelling."""
        wanted = name[:_LONGEST_NAME_COMPARED].lower()
        spelled = {each.lower(): each for each, found in self._names.items() if isinstance(found, ModelCard)}
        same = sorted(
            each
            for lowered, each in spelled.items()
            if lowered.rpartition("/")[2] == wanted.rpartition("/")[2]
        )
        similar = [spelled[each] for each in difflib.get_close_matches(wanted, spelled, n=_NEAREST)]
        return list(dict.fromkeys((*same, *similar)))[:_NEAREST]
