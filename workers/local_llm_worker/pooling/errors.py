"""What a client can be told, and what stops the program from starting.

RequestError
 ├─ BadRequest (400)          a field is missing, of the wrong type, too long
 ├─ NotFound (404)            path, or model
 ├─ MethodNotAllowed (405)
 ├─ BodyTooLarge (413)
 ├─ ComputationFailed (500)   the model raised, or answered something that is no number
 │   └─ DeviceLost            and will for every batch to come
 └─ OutOfMemory (503)         one input alone does not fit
InputRejected                 raised where inputs have numbers, not names; becomes a BadRequest
ModelRefused                  the folder cannot be served; ends the program
"""

from __future__ import annotations

from typing import Any, ClassVar


class RequestError(Exception):
    """Base of what is answered to a client.

    Args:
        message: what is wrong and what to do, for people.
        param: the request's field at fault, if one is, as in ``input[3]``.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error object in OpenAI's shape."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(RequestError):
    """The request cannot be understood, or asks for what this model does not do."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class NotFound(BadRequest):
    """No such path, or no such model."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """The model asked for is not the one that runs here."""

    code = "model_not_found"


class MethodNotAllowed(BadRequest):
    """The path exists, the method is another.

    Args:
        message: as of every `RequestError`.
        allow: the header that names the methods.
    """

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooLarge(BadRequest):
    """Counted while it is read."""

    status = 413
    code = "request_too_large"


class ComputationFailed(RequestError):
    """The model raised. The traceback is in the worker's log, never in the answer."""

    code = "computation_failed"


class DeviceLost(ComputationFailed):
    """CUDA failed in a way that no later call recovers from."""

    code = "device_lost"


class OutOfMemory(RequestError):
    """A batch did not fit the device's memory; a client meets it for a batch of one only."""

    status = 503
    code = "out_of_memory"


class InputRejected(Exception):
    """One input of several is not computed; the endpoint knows what the client calls it.

    Args:
        index: the input's place in what was submitted.
        reason: continues a sentence that begins with the field's name.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"input {index} {reason}")
        self.index = index
        self.reason = reason


class ModelRefused(Exception):
    """The folder holds nothing that this program serves; the message says why."""
