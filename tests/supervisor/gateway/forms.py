"""Forms as clients send them, byte by byte."""

from __future__ import annotations

from collections.abc import Iterable

BOUNDARY = b"a-boundary"
HEADERS = [(b"content-type", b"multipart/form-data; boundary=" + BOUNDARY)]
END = b"--" + BOUNDARY + b"--\r\n"


def part(name: str, content: bytes | str, *, filename: str | None = None) -> bytes:
    """One field, or file."""
    file = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: audio/wav'
    head = f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    content = content.encode() if isinstance(content, str) else content
    return b"--" + BOUNDARY + b"\r\n" + head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole body."""
    return b"".join(parts) + END


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in pieces, cut at these places; none of them is empty."""
    ends = sorted({min(each, len(body)) for each in places} | {len(body)})
    pieces = [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [piece for piece in pieces if piece]
