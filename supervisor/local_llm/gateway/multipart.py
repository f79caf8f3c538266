"""The model that a form names, found while the form streams by: multipart/form-data, as RFC 7578 has it.

python-multipart is the parser that the workers' frameworks use too, and the rules here are theirs, so both
read the same form: of a part's headers the last of a name counts, a part with a file name is a file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from local_llm.errors import InvalidRequest
from local_llm.gateway.request import Asked

LONGEST_MODEL_BYTES = 1024
"""Of the field `model`. No model's name comes near it."""

_LONGEST_FLAG_BYTES = 8
# The parser's own bounds, which not every version of it has.
_LONGEST_HEADER_BYTES = 8192
_LONGEST_BOUNDARY_BYTES = 256
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
"""What pydantic, and so vLLM, takes for true in a form."""

# It warns of every form that is damaged, which the client is told, and the access log has.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class FormReader:
    """Reads a form piece by piece and keeps nothing of it but two short fields.

    Args:
        headers: of the request, names in lower case.

    Raises:
        InvalidRequest: the body is no such form, by its Content-Type.
    """

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._parser = MultipartParser(
            _boundary(headers),
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._take_header_name,
                "on_header_value": self._take_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": self._take_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._header_name = self._header_value = self._disposition = b""
        self._field: str | None = None  # of those that are kept, the one being read
        self._content = b""
        self._model: str | None = None
        self._stream = False
        self._is_whole = False

    def feed(self, piece: bytes) -> None:
        """Reads the next piece.

        Raises:
            InvalidRequest: this is no form, or its field `model` cannot be a model's name.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise InvalidRequest(f"The body is no multipart/form-data: {error}.") from None

    def asked(self) -> Asked:
        """What the whole form asks for.

        Raises:
            InvalidRequest: it has no end, or names no model.
        """
        if not self._is_whole:
            raise InvalidRequest("The form is cut short: its closing boundary is missing.")
        if not self._model:
            raise InvalidRequest(
                "The form names no model: add a field `model` with one of those that GET /v1/models lists.",
                param="model",
            )
        return Asked(self._model, self._stream)

    # Called by the parser

    def _begin_part(self) -> None:
        self._disposition = b""

    def _begin_header(self) -> None:
        self._header_name = self._header_value = b""

    def _take_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._bound_header()

    def _take_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._bound_header()

    def _bound_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > _LONGEST_HEADER_BYTES:
            raise InvalidRequest("The body is no multipart/form-data: a header of a part has no end.")

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"")
        self._field = name.decode() if name in (b"model", b"stream") else None
        self._content = b""
        if self._field == "model" and b"filename" in options:
            raise InvalidRequest("The form's field `model` is a file; send it as text.", param="model")
        if self._field == "model" and self._model is not None:
            raise InvalidRequest("The form has two fields `model`; send one.", param="model")

    def _take_content(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            return
        limit = LONGEST_MODEL_BYTES if self._field == "model" else _LONGEST_FLAG_BYTES
        if len(self._content) + end - start > limit:
            self._refuse_long_field()
            return
        self._content += data[start:end]

    def _refuse_long_field(self) -> None:
        if self._field == "model":
            raise InvalidRequest(
                f"The form's field `model` is longer than {LONGEST_MODEL_BYTES} bytes.", param="model"
            )
        self._field = None  # no true or false, which is the worker's to say

    def _end_part(self) -> None:
        if self._field == "model":
            self._model = _decoded(self._content)
        elif self._field == "stream":
            self._stream = self._content.decode("latin-1").lower() in _TRUE
        self._field = None

    def _end(self) -> None:
        self._is_whole = True


def _boundary(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    said = [value for name, value in headers if name == b"content-type"]
    if len(said) > 1:  # the worker might heed another one than we
        raise InvalidRequest("The request has more than one Content-Type.")
    content_type, options = parse_options_header(said[0] if said else None)
    if options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8"}:
        raise InvalidRequest("The form's fields must be UTF-8: leave `charset` out of the Content-Type.")
    if content_type != b"multipart/form-data":
        shown = content_type[:100].decode("latin-1") or "of no Content-Type"
        raise InvalidRequest(
            "This endpoint takes a form, multipart/form-data, with the fields `model` and `file`; "
            f"the body is {shown}."
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequest("The Content-Type, multipart/form-data, has no boundary.")
    if len(boundary) > _LONGEST_BOUNDARY_BYTES:
        raise InvalidRequest("The Content-Type's boundary is too long.")
    return boundary


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The form's field `model` is no UTF-8.", param="model") from None
