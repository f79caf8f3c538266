"""Every error a client can meet.

An error knows its status, its OpenAI body and whether a retry makes sense. Rendering it onto the wire
is the gateway's work.

    ServiceError
     ├─ InvalidRequest (400)      bad JSON, no model, a wrong field
     │   ├─ WrongKind             chat asked of an embedding model
     │   ├─ WrongEngine           the engine that runs the model does not have this endpoint
     │   └─ ModelDoesNotFit       larger than the device
     ├─ Unauthorized (401)
     ├─ Forbidden (403)           /admin from elsewhere, without keys
     ├─ NotFound (404)            path
     │   └─ ModelNotFound         with the nearest names
     ├─ MethodNotAllowed (405)
     ├─ BodyTooLarge (413)
     ├─ HeadTooLarge (431)        headers without an end
     ├─ Overloaded (429)          queue full, or waiting bodies too large in all
     ├─ UpstreamDied (502)        the worker went away before it answered
     ├─ WorkerRefused (502)       it answered with an error after its stream had begun
     └─ Unavailable (503)         with Retry-After where one is known
         ├─ ModelBroken           an incomplete folder
         ├─ LoadFailed            the worker did not start: exit code, last lines
         │   ├─ PortTaken         another program was quicker; a fresh worker may have more luck
         │   └─ WarmStartFailed   of a worker forked from a template; a cold start may go better
         ├─ WaitedTooLong
         └─ ShuttingDown
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of all errors told to a client.

    Args:
        message: what happened, to which model, and what to do, in a sentence or two.
        param: the request's field at fault, if one is.
        retry_after_seconds: becomes the Retry-After header, rounded up.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        """The error object in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Response headers beyond the content type."""
        if self.retry_after_seconds is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after_seconds)))}


class InvalidRequest(ServiceError):
    """The request cannot be understood as it stands."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class WrongKind(InvalidRequest):
    """The model exists and does not do what this endpoint is for."""

    code = "wrong_model_kind"


class WrongEngine(InvalidRequest):
    """The model's kind would answer this endpoint; the engine that runs it does not."""

    code = "wrong_model_engine"


class ModelDoesNotFit(InvalidRequest):
    """The model can never fit the device. A 400, since SDKs would retry a 5xx in vain."""

    code = "model_does_not_fit"


class Unauthorized(ServiceError):
    """No key, or none that is known."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"

    def headers(self) -> dict[str, str]:
        return {"www-authenticate": "Bearer"}


class Forbidden(ServiceError):
    """Not for this client, whatever it brings."""

    status = 403
    code = "forbidden"
    type = "permission_error"


class NotFound(ServiceError):
    """No such path."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    """No model of that name."""

    code = "model_not_found"

    @classmethod
    def named(cls, name: str, nearest: Sequence[str]) -> ModelNotFound:
        """Says which models come nearest to `name`, which is cut to a printable length."""
        shown = name if len(name) <= 100 else name[:100] + "..."
        hint = (
            f"Did you mean {', '.join(repr(each) for each in nearest)}?"
            if nearest
            else "GET /v1/models lists those there are."
        )
        return cls(f"The model {shown!r} does not exist. {hint}", param="model")


class MethodNotAllowed(ServiceError):
    """The path exists, the method is another."""

    status = 405
    code = "method_not_allowed"
    type = "invalid_request_error"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {"allow": self.allow}


class BodyTooLarge(ServiceError):
    """Counted while it is read, whatever Content-Length says."""

    status = 413
    code = "request_too_large"
    type = "invalid_request_error"


class HeadTooLarge(ServiceError):
    """Request line and headers, counted while they come in."""

    status = 431
    code = "headers_too_large"
    type = "invalid_request_error"


class Overloaded(ServiceError):
    """As many wait as may wait."""

    status = 429
    code = "queue_full"
    type = "rate_limit_error"


class UpstreamDied(ServiceError):
    """The worker ended, or stopped making sense, in the middle of a request."""

    status = 502
    code = "worker_died"


class WorkerRefused(ServiceError):
    """The worker answered with an error where only an event of a stream can tell it any more.

    Args:
        message: as the worker has it.
        error: its own error object, passed on as it is; None if it had none.
    """

    status = 502
    code = "worker_refused"

    def __init__(self, message: str, *, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self._error = error

    def body(self) -> dict[str, Any]:
        return super().body() if self._error is None else {"error": self._error}


class Unavailable(ServiceError):
    """Not now; the message says why."""

    status = 503
    code = "unavailable"


class ModelBroken(Unavailable):
    """The folder is incomplete; SDKs may retry, since a download may be going on."""

    code = "model_broken"


class LoadFailed(Unavailable):
    """The worker did not become ready."""

    code = "model_load_failed"


class PortTaken(LoadFailed):
    """Another program listens on the worker's port. Nothing is wrong with the model."""


class WarmStartFailed(LoadFailed):
    """A worker that was forked from a warm template did not become ready; a cold start may."""


class WaitedTooLong(Unavailable):
    """The request waited longer than `queue.max_wait_seconds`."""

    code = "waited_too_long"


class ShuttingDown(Unavailable):
    """The server is being stopped."""

    code = "shutting_down"
