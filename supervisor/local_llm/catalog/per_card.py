"""What is worked out once for each card, since every request asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from local_llm.catalog.card import ModelCard

T = TypeVar("T")


class PerCard(Generic[T]):
    """Remembers one result a model: that of the newest version of its card.

    Args:
        work_out: from a card, and from nothing that changes without `forget`.
    """

    def __init__(self, work_out: Callable[[ModelCard], T]) -> None:
        self._work_out = work_out
        self._newest: dict[str, tuple[ModelCard, T]] = {}

    def __call__(self, card: ModelCard) -> T:
        """Its result."""
        known = self._newest.get(card.id)
        if known is None or (known[0] is not card and known[0] != card):
            known = self._newest[card.id] = card, self._work_out(card)
        return known[1]

    def forget(self) -> None:
        """Works everything out anew: what it is worked out from has changed."""
        self._newest.clear()
