"""The columns of `local-llm models` for which weight files are opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_llm import gpu
from local_llm.catalog.card import ModelCard
from local_llm.checking.fitting import fitting
from local_llm.footprint.placement import Refusal
from local_llm.gpu import Device
from local_llm.settings import Settings


@dataclass(frozen=True, slots=True)
class Overview:
    """Of one model.

    Attributes:
        context_length: tokens that the model can take; None if it does not say.
        quantization: of its weights, for people; None if there is none.
        parsers: vLLM's for tool calls and reasoning, as far as they are certain.
        fits: whether it can be loaded on this machine.
        fitting_context: the longest that fits, in tokens; None if it does not fit, or is not known.
        refusal: why it does not fit; None if it does.
    """

    context_length: int | None
    quantization: str | None
    parsers: tuple[str, ...]
    fits: bool
    fitting_context: int | None
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "context_length": self.context_length,
            "quantization": self.quantization,
            "parsers": list(self.parsers),
            "fits": self.fits,
            "fitting_context": self.fitting_context,
            "refusal": self.refusal,
        }


def overview(
    cards: Sequence[ModelCard], settings: Settings, environment: Mapping[str, str]
) -> dict[str, Overview]:
    """What each model needs, and whether it fits this machine, by id.

    Args:
        cards: the models.
        settings: all of them.
        environment: what workers inherit.
    """
    devices = gpu.devices()
    return {card.id: _of(card, settings, devices, environment) for card in cards}


def _of(
    card: ModelCard, settings: Settings, devices: Sequence[Device], environment: Mapping[str, str]
) -> Overview:
    footprint, fit = fitting(card, settings, devices, environment)
    family = card.runs_as.family
    parsers = () if family is None else (family.tool_call_parser, family.reasoning_parser)
    return Overview(
        context_length=footprint.context_length or card.context_length,
        quantization=None if footprint.quantization is None else footprint.quantization.title,
        parsers=tuple(dict.fromkeys(each for each in parsers if each is not None)),
        fits=not isinstance(fit, Refusal),
        fitting_context=None if isinstance(fit, Refusal) else fit.context,
        refusal=f"it {fit.reason}" if isinstance(fit, Refusal) else None,
    )
