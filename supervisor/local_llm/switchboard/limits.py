"""What the policy has to keep within."""

from __future__ import annotations

from dataclasses import dataclass

from local_llm.switchboard.events import Model
from local_llm.switchboard.places import Places


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings and the device allow. Times in seconds.

    Attributes:
        max_models: models loaded at the same time.
        capacity_bytes: of device memory for all of them; None if not known.
        patience: a line is due when it is this many switches old.
        drain_max_seconds: then what still runs on a draining worker is cut.
        max_waiting: requests that may wait for one model.
        max_waiting_total: requests that may wait in all.
        max_wait_seconds: how long one may.
        idle_unload_seconds: a worker without requests for so long goes; None: it stays.
        default_model: what is loaded when nobody wants anything else; the event `DefaultIs` changes it.
        default_model_after_seconds: how long others have to be idle before it takes their place.
    """

    max_models: int = 1
    capacity_bytes: int | None = None
    patience: float = 1.0
    drain_max_seconds: float = 600.0
    max_waiting: int = 256
    max_waiting_total: int = 1024
    max_wait_seconds: float = 600.0
    idle_unload_seconds: float | None = None
    default_model: Model | None = None
    default_model_after_seconds: float = 0.0

    @property
    def places(self) -> Places:
        """What may be loaded at the same time."""
        return Places(self.max_models, self.capacity_bytes)
