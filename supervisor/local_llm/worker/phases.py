"""The phases of a worker's life, and the one table of what may follow what."""

from __future__ import annotations

import logging
import time
from enum import Enum

from local_llm.worker.launch import Identity

logger = logging.getLogger(__name__)


class Phase(str, Enum):
    """Where a worker is in its life."""

    LAUNCHING = "launching"  # its nanny is being started, or not even that yet
    LOADING = "loading"  # its program runs and does not answer yet
    READY = "ready"  # it has proved who it is and answers
    STOPPING = "stopping"  # it was told to end, or ended, or never began; not everything is gone yet
    GONE = "gone"  # no process, no temporary folder, no shared memory of it is left


LEGAL: dict[Phase, frozenset[Phase]] = {
    Phase.LAUNCHING: frozenset(
        {
            Phase.LOADING,  # the nanny says that the program runs
            Phase.STOPPING,  # stopped meanwhile, or the program could not be started
            Phase.GONE,  # stopped before it was ever started
        }
    ),
    Phase.LOADING: frozenset(
        {
            Phase.READY,  # answered a probe with its own key, and serves the model by name
            Phase.STOPPING,  # stopped, ended by itself, got on no more, or answered as another model
        }
    ),
    Phase.READY: frozenset({Phase.STOPPING}),  # stopped, ended by itself, or answered no more
    Phase.STOPPING: frozenset(
        {
            Phase.GONE,  # the nanny left, or was killed and swept after, or what is left cannot be killed
        }
    ),
    Phase.GONE: frozenset(),
}


class Lifecycle:
    """Holds a worker's phase; `enter` is the only way to change it.

    Args:
        identity: the worker's, for the log.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._phase = Phase.LAUNCHING
        self._since = time.monotonic()

    @property
    def phase(self) -> Phase:
        """The phase now."""
        return self._phase

    @property
    def seconds_in_phase(self) -> float:
        """How long it has been in this phase."""
        return time.monotonic() - self._since

    def enter(self, phase: Phase, reason: str) -> None:
        """Goes over to `phase` and logs it.

        Args:
            phase: the next one.
            reason: why, for the log.

        Raises:
            ValueError: `LEGAL` does not have this transition; a mistake of the caller.
        """
        worker_id = self._identity.worker_id
        if phase not in LEGAL[self._phase]:
            raise ValueError(f"{worker_id}: {self._phase.value} -> {phase.value} ({reason})")
        fields = {
            "worker": worker_id,
            "model": self._identity.card.id,
            "from": self._phase.value,
            "to": phase.value,
            "seconds": round(self.seconds_in_phase, 3),
            "reason": reason,
        }
        logger.info("worker %s", phase.value, extra={"fields": fields})
        self._phase = phase
        self._since = time.monotonic()
