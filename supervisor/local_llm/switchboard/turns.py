"""Whose turn it is to be loaded, and who goes for it; and how long anybody waits at most.

A line's age counts from when somebody began to wait for the model without a gap, or from the end of the
model's last turn: a model whose turn left some behind queues up again behind those who had none. A line is
due when it is `patience` times the cost of the switch to it old (but no older than half of
`max_wait_seconds`, or a model that loads very slowly would never be loaded). One exception keeps two
crowds from switching once a request: a worker whose own line did not fit into it (`max_concurrent`) is
left to serve for that long before it drains for another.

Hence the bound. Let P be the longest such patience, D the longest drain (answers, at most
`drain_max_seconds`), L the longest switch (from `Stop` to the next model's `Loaded`), and k one more than
the number of other models whose lines are ahead, or whose workers are loading, when a request arrives.
While nothing fails and nobody unloads by hand, the request's model has its turn within

    P + k x (D + L)          as long as no line is longer than its `max_concurrent`,
    k x (P + D + L)          in any case,

and at its turn everyone in its line is admitted at once, up to `max_concurrent`. This holds for any number
of resident models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from local_llm.switchboard.events import Model
from local_llm.switchboard.limits import Limits
from local_llm.switchboard.places import Hold, hold_of
from local_llm.switchboard.residents import Line, Loading, Resident, Serving
from local_llm.switchboard.switch_costs import SwitchCosts


@dataclass(frozen=True, slots=True)
class Turn:
    """A model that is to be loaded, and those that go, or are going, so that it has room."""

    model: Model
    going: list[Resident]


def turns(
    residents: Collection[Resident],
    lines: Mapping[str, Line],
    limits: Limits,
    costs: SwitchCosts,
    at: float,
) -> tuple[list[Turn], float]:
    """Plans places for the models that are waited for and have no open worker, oldest line first.

    A model whose worker drains, and does so for none of those ahead, needs no place: its drain is called
    off.

    Returns:
        The turns that have come, and when the next one comes if time alone brings it, else infinity.
    """
    found: list[Turn] = []
    promised: list[Model] = []
    staying = [each for each in residents if not each.goes_anyway]
    for line in claims(residents, lines):
        going = [each for each in staying if each.model.key == line.model.key]
        if not going:
            needed = limits.places.who_goes(staying, [*promised, line.model], lines)
            if needed is None:
                break
            going = needed
            due = _due(line, going, lines, limits, costs)
            if at < due:
                return found, due
            found.append(Turn(line.model, going))
        promised.append(line.model)
        staying = [each for each in staying if each not in going]
    return found, math.inf


def claims(residents: Iterable[Resident], lines: Mapping[str, Line]) -> list[Line]:
    """The lines without an open worker, oldest first; of equal age, those that had no turn yet."""
    open_keys = {each.model.key for each in residents if isinstance(each.stage, Loading | Serving)}
    claims = [line for key, line in lines.items() if key not in open_keys]
    return sorted(claims, key=lambda line: (line.since, line.had_turn))


def _due(
    line: Line, going: Collection[Resident], lines: Mapping[str, Line], limits: Limits, costs: SwitchCosts
) -> float:
    """When it is a line's turn; minus infinity if all who have to go can go at once."""
    holds = [hold_of(each, lines) for each in going]
    if all(hold in {Hold.UNWANTED, Hold.IDLE} for hold in holds):
        return -math.inf
    crowded_since = [
        each.stage.since
        for each, hold in zip(going, holds, strict=True)
        if hold is Hold.BUSY and each.model.key in lines
    ]
    patience = min(limits.patience * costs.of(line.model), limits.max_wait_seconds / 2)
    return max([line.since, *crowded_since]) + patience
