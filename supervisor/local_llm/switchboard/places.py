"""Places: which models may be loaded together, and who goes so that another has room."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from local_llm.switchboard.events import Model
from local_llm.switchboard.residents import Draining, Leaving, Loading, Resident, Serving


class Hold(IntEnum):
    """What a resident's going would cost, least first."""

    UNWANTED = 0
    """Loading, and nobody waits for it any more."""
    IDLE = 1
    """Serving nobody: whoever waited for it has been admitted before places are made."""
    DRAINING = 2
    """Closed already for somebody."""
    BUSY = 3
    """Serving."""
    WANTED = 4
    """Loading for those who wait for it: cannot go before it has served them."""


@dataclass(frozen=True, slots=True)
class Places:
    """What may be loaded at the same time.

    Attributes:
        max_models: how many models.
        capacity_bytes: of device memory for all together; None if not known.
    """

    max_models: int
    capacity_bytes: int | None

    def hold(self, models: Sequence[Model]) -> bool:
        """Whether all of `models` may be loaded together. One alone always may: fit is checked before."""
        if len(models) <= 1:
            return True
        capacity = self.capacity_bytes
        fits = capacity is None or sum(model.need_bytes for model in models) <= capacity
        return len(models) <= self.max_models and fits

    def who_goes(
        self, staying: Iterable[Resident], claimants: Sequence[Model], wanted: Container[str]
    ) -> list[Resident] | None:
        """Those of `staying` whose going gives all `claimants` room.

        The idle go before the busy, the longest unused before the others, and kept models only if the rest
        is not enough. Nobody goes whose going does not help.

        Args:
            staying: the residents whose places are not free, and not promised to another.
            claimants: the models that need a place.
            wanted: the keys of the models that somebody waits for.

        Returns:
            None if the claimants have no room together, whoever goes.
        """
        stay = sorted(staying, key=lambda each: _reluctance(each, wanted))
        going: list[Resident] = []
        while not self.hold([*_models(stay), *claimants]):
            if not stay:
                return None
            going.append(stay.pop(0))
        for each in reversed(going.copy()):
            if self.hold([*_models(stay), each.model, *claimants]):
                going.remove(each)
                stay.append(each)
        return going


def hold_of(resident: Resident, wanted: Container[str]) -> Hold:
    """What a resident's going would cost now."""
    match resident.stage:
        case Loading():
            return Hold.WANTED if resident.model.key in wanted else Hold.UNWANTED
        case Serving():
            return Hold.BUSY if resident.leases else Hold.IDLE
        case Draining() | Leaving():
            return Hold.DRAINING


def _reluctance(resident: Resident, wanted: Container[str]) -> tuple[bool, Hold, float]:
    hold = hold_of(resident, wanted)
    since = resident.used_at if hold is Hold.IDLE else resident.stage.since
    return resident.model.kept, hold, since


def _models(residents: Iterable[Resident]) -> list[Model]:
    return [each.model for each in residents]
