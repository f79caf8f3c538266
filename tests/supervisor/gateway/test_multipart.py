"""The model in a form: found wherever it stands, however the form is cut."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from local_llm.errors import InvalidRequest
from local_llm.gateway.multipart import LONGEST_MODEL_BYTES, FormReader
from local_llm.gateway.request import Asked
from tests.supervisor.gateway.forms import BOUNDARY, END, HEADERS, cut, form, part

FILE = part("file", b"RIFF\r\n--a-bound\r\n\x00\xff" * 50, filename="a.wav")
MODEL = part("model", "org/whisper")


def read(*pieces: bytes) -> Asked:
    reader = FormReader(HEADERS)
    for piece in pieces:
        reader.feed(piece)
    return reader.asked()


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (form(MODEL, FILE), "org/whisper", False),
        (form(FILE, MODEL), "org/whisper", False),
        (form(FILE, part("stream", "true"), MODEL), "org/whisper", True),
        (form(MODEL, part("stream", "True")), "org/whisper", True),
        (form(MODEL, part("stream", "1")), "org/whisper", True),
        (form(MODEL, part("stream", "false")), "org/whisper", False),
        (form(MODEL, part("stream", "")), "org/whisper", False),
        (form(MODEL, part("stream", "true" * 1000)), "org/whisper", False),
        (form(part("model", "модель")), "модель", False),
        (form(part("prompt", 'name="model"\r\n\r\nx'), MODEL), "org/whisper", False),
        (b"\r\n" + form(MODEL), "org/whisper", False),
        (form(MODEL) + b"an epilogue, which nobody reads", "org/whisper", False),
        (form(MODEL.replace(b"Content-Disposition", b"content-DISPOSITION")), "org/whisper", False),
        (form(MODEL.replace(b'"model"', b"model")), "org/whisper", False),
        (form(MODEL.replace(b"Content-D", b"Content-Type: text/plain\r\nContent-D")), "org/whisper", False),
    ],
)
def test_the_model_is_found_wherever_it_stands(body: bytes, model: str, stream: bool) -> None:
    """Before the file or behind it, among other fields, with its header as odd clients write it."""
    assert read(body) == Asked(model, stream)


@settings(max_examples=300, deadline=None)
@given(
    st.permutations([FILE, MODEL, part("stream", "true"), part("language", "en")]),
    st.lists(st.integers(0, 1500), max_size=30),
)
def test_cut_anywhere(parts: list[bytes], places: list[int]) -> None:
    """Where the network cuts the form makes no difference."""
    assert read(*cut(form(*parts), places)) == Asked("org/whisper", stream=True)


def test_byte_by_byte() -> None:
    """The slowest client of all."""
    body = form(FILE, MODEL)
    assert read(*cut(body, range(len(body)))) == Asked("org/whisper", stream=False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(FILE), "names no model"),
        (form(part("model", "")), "names no model"),
        (END, "names no model"),
        (form(MODEL, FILE, MODEL), "two fields `model`"),
        (form(MODEL, part("model", "")), "two fields `model`"),
        (form(part("model", "m", filename="model.txt")), "`model` is a file"),
        (form(part("model", "m" * (LONGEST_MODEL_BYTES + 1))), "longer than 1024 bytes"),
        (form(part("model", b"\xff\xfe")), "no UTF-8"),
        (b"", "cut short"),
        (MODEL, "cut short"),
        (form(MODEL, FILE)[:-6], "cut short"),
        (b'{"model": "org/whisper"}', "no multipart/form-data"),
        (b"hello", "no multipart/form-data"),
        (form(MODEL.replace(b"Content-D", b"x" * 10_000 + b": y\r\nContent-D")), "no multipart/form-data"),
    ],
)
def test_what_is_wrong_is_told(body: bytes, said: str) -> None:
    """400, whole or byte by byte."""
    with pytest.raises(InvalidRequest, match=said):
        read(body)
    with pytest.raises(InvalidRequest, match=said):
        read(*cut(body, range(0, len(body), 7)))


@pytest.mark.parametrize(
    ("content_type", "said"),
    [
        (None, "of no Content-Type"),
        (b"application/json", "the body is application/json"),
        (b"multipart/form-data", "no boundary"),
        (b"multipart/form-data; boundary=", "no boundary"),
        (b"multipart/form-data; boundary=" + b"x" * 1000, "boundary is too long"),
        (b"multipart/mixed; boundary=a-boundary", "the body is multipart/mixed"),
        (b"x" * 10_000, "the body is xxx"),
        (b"multipart/form-data; boundary=a-boundary; charset=latin-1", "must be UTF-8"),
    ],
)
def test_another_content_type(content_type: bytes | None, said: str) -> None:
    """Told before a byte of the body is read."""
    with pytest.raises(InvalidRequest, match=said) as caught:
        FormReader([] if content_type is None else [(b"content-type", content_type)])
    assert len(caught.value.message) < 500


def test_two_content_types() -> None:
    """Whoever reads the form next might take the other boundary."""
    both = [(b"content-type", b"multipart/form-data; boundary=" + each) for each in (b"a", b"b")]
    with pytest.raises(InvalidRequest, match="more than one"):
        FormReader(both)


@pytest.mark.parametrize("value", [b'MULTIPART/form-data; charset=utf-8; boundary="a-boundary"'])
def test_how_a_content_type_may_be_written(value: bytes) -> None:
    """Quoted, with other parameters, in capitals."""
    reader = FormReader([(b"content-type", value)])
    reader.feed(form(MODEL))
    assert reader.asked().model == "org/whisper"


_BITS = st.sampled_from(
    [
        b"\r\n",
        b"--",
        BOUNDARY,
        b"--" + BOUNDARY,
        b'name="model"',
        b"Content-Disposition: form-data",
        b"; ",
        b": ",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_BITS | st.just(MODEL) | st.just(FILE) | st.just(END) | st.binary(max_size=9), max_size=12))
async def test_a_worker_reads_the_same_model(bits: list[bytes]) -> None:
    """Whatever is sent: what is routed by its model has that model for the framework that the worker runs."""
    body = b"".join(bits)
    try:
        asked = read(body)
    except InvalidRequest:
        return

    async def stream():  # type: ignore[no-untyped-def]
        yield body

    try:
        seen = await MultiPartParser(Headers(raw=HEADERS), stream()).parse()
    except MultiPartException:  # the worker refuses more than is refused here
        return
    assert seen.getlist("model") == [asked.model]
    await seen.close()


def test_nothing_of_a_large_file_is_kept() -> None:
    """64 MiB go through, and no more than two pieces are ever there."""
    piece = b"\r\n--a-boundarx" * 5000
    reader = FormReader(HEADERS)
    reader.feed(MODEL + FILE[:-2])
    tracemalloc.start()
    try:
        for _ in range((64 << 20) // len(piece)):
            reader.feed(piece)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reader.feed(b"\r\n" + END)
    assert reader.asked().model == "org/whisper"
    assert most_bytes < 2 * len(piece)
