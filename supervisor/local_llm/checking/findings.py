"""What is known of one model before it is started: decided, measured from its files, never run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from local_llm import gpu
from local_llm.catalog.card import ModelCard
from local_llm.checking.cautions import cautions
from local_llm.checking.fitting import fitting
from local_llm.footprint.footprint import Footprint
from local_llm.footprint.placement import Placement, Refusal
from local_llm.model_settings import Origin, origins
from local_llm.settings import Settings
from local_llm.worker import command
from local_llm.worker.environment import KEY_VARIABLE, OWN_VARIABLES, inheritable
from local_llm.worker.launch import Identity, Launch

SHOWN_PORT = 20_000
"""In a command line that is only shown; each launch takes a free one."""

SHOWN_TEMPORARY = Path("/tmp/local-llm")  # noqa: S108 - shown, never made

HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one model.

    Attributes:
        card: of the model; an adapter's names its base.
        said: what the settings say of it, and where, the least specific first.
        argv: the exact command line of its worker.
        environment: what that is given beside the supervisor's own; values that look like secrets are hidden.
        footprint: the memory that it needs.
        fit: where it would run, or why it cannot.
        warnings: for people; none of them keeps it from being served.
    """

    card: ModelCard
    said: tuple[Origin, ...]
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    footprint: Footprint
    fit: Placement | Refusal
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        weights, quantization = self.footprint.weights, self.footprint.quantization
        family = self.card.runs_as.family
        return {
            "id": self.card.id,
            "aliases": list(self.card.aliases),
            "path": str(self.card.path),
            "kind": self.card.kind.value,
            "engine": self.card.engine.value,
            "evidence": list(self.card.evidence),
            "architecture": self.card.architecture,
            "base": None if self.card.base is None else self.card.base.id,
            "family": None if family is None else family.name,
            "tool_call_parser": None if family is None else family.tool_call_parser,
            "reasoning_parser": None if family is None else family.reasoning_parser,
            "settings": [
                {"key": each.key, "value": _plain(each.value), "pattern": each.pattern} for each in self.said
            ],
            "command": list(self.argv),
            "environment": dict(self.environment),
            "weights": {
                "file_bytes": weights.file_bytes,
                "loaded_bytes": weights.loaded_bytes,
                "exact": weights.exact,
            },
            "kv_bytes_per_token": self.footprint.kv_bytes_per_token,
            "context_length": self.footprint.context_length,
            "quantization": None if quantization is None else quantization.title,
            "notes": list(self.footprint.notes),
            "fits": isinstance(self.fit, Placement),
            "fit": _fit_as_json(self.fit),
            "warnings": list(self.warnings),
        }


def examine(card: ModelCard, settings: Settings, environment: Mapping[str, str]) -> Findings:
    """Works out what would be done with a model. Reads its files' headers, and asks NVML.

    Args:
        card: the model.
        settings: all of them.
        environment: what workers inherit.

    Raises:
        LoadFailed: the settings want what is not there.
    """
    devices = gpu.devices()
    identity = Identity("check", card.runs_as, SHOWN_PORT, "", SHOWN_TEMPORARY)
    launch = command.launch(identity, settings, devices=devices, environment=environment)
    footprint, fit = fitting(card, settings, devices, environment)
    return Findings(
        card=card,
        said=tuple(origins(settings.models, card.id)),
        argv=launch.argv,
        environment=_given(launch, environment),
        footprint=footprint,
        fit=fit,
        warnings=tuple(cautions(card, settings)),
    )


def _given(launch: Launch, environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker is given beside the supervisor's own, less what differs from launch to launch."""
    own = {*OWN_VARIABLES, KEY_VARIABLE}
    added = {
        name: value
        for name, value in launch.env.items()
        if name not in own and environment.get(name) != value
    }
    harmless = inheritable(added)
    return {name: value if name in harmless else HIDDEN for name, value in sorted(added.items())}


def _fit_as_json(fit: Placement | Refusal) -> dict[str, Any]:
    if isinstance(fit, Refusal):
        return {"refused": f"it {fit.reason}"}
    return {
        "summary": fit.summary(),
        "devices": [each.index for each in fit.devices],
        "tensor_parallel": fit.tensor_parallel,
        "context": fit.context,
        "kv_tokens": fit.kv_tokens,
        "weights_bytes": fit.weights_bytes,
        "kv_bytes": fit.kv_bytes,
        "overhead_bytes": fit.overhead_bytes,
    }


def _plain(value: Any) -> Any:
    """A setting's value as JSON has it; of an environment, only the names."""
    return sorted(value) if isinstance(value, Mapping) else to_jsonable_python(value)
