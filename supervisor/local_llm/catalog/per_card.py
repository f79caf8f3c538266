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
        known = self._known(card)
        if known is None:
            known = self._newest[card.id] = card, self._work_out(card)
        return known[1]

    def knows(self, card: ModelCard) -> bool:
        """Whether it is worked out already."""
        return self._known(card) is not None

    def _known(self, card: ModelCard) -> tuple[ModelCard, T] | None:
        known = self._newest.get(card.id)
        return known if known is not None and (known[0] is card or known[0] == card) else None

    def forget(self) -> None:
        """Works everything out anew: what it is worked out from has changed."""
        self._newest.clear()
