"""What became of each model's workers since the server started, for status."""

from __future__ import annotations

from dataclasses import dataclass

REMEMBERED_MODELS = 1_000


@dataclass(slots=True)
class Record:
    """One model's.

    Attributes:
        starts: workers started.
        failures: loads that failed and workers that ended unasked.
        last_error: the message of the last failure; None if there was none.
        last_error_at: when that was, monotonic seconds.
    """

    starts: int = 0
    failures: int = 0
    last_error: str | None = None
    last_error_at: float = 0.0


class History:
    """Per model id; those that were started longest ago are forgotten."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def started(self, model_id: str) -> None:
        """A worker is started."""
        record = self.records.pop(model_id, None) or Record()
        record.starts += 1
        self.records[model_id] = record
        while len(self.records) > REMEMBERED_MODELS:
            del self.records[next(iter(self.records))]

    def failed(self, model_id: str, message: str, at: float) -> None:
        """A load failed, or a worker ended unasked."""
        record = self.records.setdefault(model_id, Record())
        record.failures += 1
        record.last_error, record.last_error_at = message, at
