"""Models that are loaded though no request wants them: the preloaded ones, and the default."""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from local_llm.catalog.card import ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.walk import ModelsDirUnreadable
from local_llm.errors import ServiceError
from local_llm.settings import ResidencySettings
from local_llm.switchboard.switchboard import Switchboard

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 10.0
"""At the default model's folder: a download that ends, or a new version, is noticed after so long."""


async def load_unasked(
    residency: Callable[[], ResidencySettings], catalog: Catalog, switchboard: Switchboard
) -> None:
    """Loads what the settings want loaded, then follows the default model's folder until it is cancelled.

    What fails is logged; requests are served meanwhile, and take their turns as ever.

    Args:
        residency: as it is set now; another default model is noticed at the next look.
        catalog: finds the models.
        switchboard: loads them.
    """
    for name in residency().preload:  # one by one: engines that start together misjudge what memory is free
        await _preload(name, catalog, switchboard)
    await _follow_default(residency, catalog, switchboard)


async def _preload(name: str, catalog: Catalog, switchboard: Switchboard) -> None:
    try:
        card = catalog.find(name)
        await switchboard.load(card.runs_as)
    except (ServiceError, ModelsDirUnreadable) as problem:
        log.warning("%s could not be preloaded: %s", name, problem)
    else:
        log.info("%s is preloaded", card.id)


async def _follow_default(
    residency: Callable[[], ResidencySettings], catalog: Catalog, switchboard: Switchboard
) -> None:
    """The switchboard returns to a version of a model; this tells it which one there is now."""
    known: ModelCard | None = None
    told: str | None = None
    while True:
        name = residency().default_model
        try:
            card = None if name is None else catalog.find(name).runs_as
            told = None
        except (ServiceError, ModelsDirUnreadable) as problem:
            card = None
            if told != str(problem):
                told = str(problem)
                log.warning("the default model %s cannot be loaded: %s", name, told)
        if card != known:
            known = card
            switchboard.set_default(card)
        await anyio.sleep(LOOK_EVERY_SECONDS)
