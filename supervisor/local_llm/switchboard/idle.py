"""What nobody asks for any more: idle workers to unload, and the default model to return to."""

from __future__ import annotations

import math
from collections.abc import Collection, Container

from local_llm.switchboard.events import Model
from local_llm.switchboard.limits import Limits
from local_llm.switchboard.places import Hold, hold_of
from local_llm.switchboard.residents import Resident
from local_llm.switchboard.turns import Turn


def outstayed(
    residents: Collection[Resident], wanted: Container[str], limits: Limits, at: float
) -> tuple[list[Resident], float]:
    """The workers that were idle for too long; kept models and the default may be so.

    Returns:
        Those to unload, and when the next one will be, else infinity.
    """
    due = {
        each.worker: each.used_at + _stay_seconds(each.model, limits)
        for each in residents
        if hold_of(each, wanted) is Hold.IDLE and not each.model.kept and not _is_default(each.model, limits)
    }
    over = [each for each in residents if due.get(each.worker, math.inf) <= at]
    return over, min((each for each in due.values() if each > at), default=math.inf)


def default_turn(
    residents: Collection[Resident], default: Model, limits: Limits, *, not_before: float, at: float
) -> tuple[Turn | None, float]:
    """The default model's turn: when all that have to go for it are idle for long enough, and not kept.

    Args:
        residents: every worker; none of them runs the default model.
        not_before: the end of its cooldown.

    Returns:
        Its turn if it has come, and when it comes if time alone brings it, else infinity.
    """
    staying = [each for each in residents if not each.goes_anyway]
    going = limits.places.who_goes(staying, [default], ()) or []
    if any(each.model.kept or hold_of(each, ()) is not Hold.IDLE for each in going):
        return None, math.inf
    due = max([not_before, *(each.used_at + limits.default_model_after_seconds for each in going)])
    return (None, due) if at < due else (Turn(default, going), math.inf)


def _stay_seconds(model: Model, limits: Limits) -> float:
    """How long a model may be idle."""
    if model.idle_unload_seconds is not None:
        return model.idle_unload_seconds or math.inf
    return math.inf if limits.idle_unload_seconds is None else limits.idle_unload_seconds


def _is_default(model: Model, limits: Limits) -> bool:
    return limits.default_model is not None and limits.default_model.key == model.key
