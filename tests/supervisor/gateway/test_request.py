"""Reading a request: the body with its limits, and the model in it."""

from __future__ import annotations

from typing import Any

import pytest

from local_llm.errors import BodyTooLarge, InvalidRequest, Overloaded
from local_llm.gateway import request as request_module
from local_llm.gateway.request import BodyBudget, ClientLeft, RequestTimeout, read_envelope


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def receiving(*pieces: bytes | None) -> Any:
    """An ASGI receive: each piece in turn; None means that the client left."""
    messages = [
        {"type": "http.disconnect"}
        if piece is None
        else {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
        for index, piece in enumerate(pieces)
    ]
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    return receive


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model": "a"}', "a", False),
        (b'{"stream": true, "messages": [{"model": "x"}], "model": "a/b"}', "a/b", True),
        (b'{"model": "a", "stream": null}', "a", False),
        (b'{"model": "a", "stream": "yes"}', "a", False),
        ('{"model": "модель"}'.encode(), "модель", False),
        (b'{"model": "a", "model": "b"}', "b", False),
    ],
)
def test_the_model_is_found_wherever_it_stands(body: bytes, model: str, stream: bool) -> None:
    """Top level only; the last of two wins, as in Python's own reader, which the workers use."""
    asked = read_envelope(body)
    assert (asked.model, asked.stream) == (model, stream)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not a JSON object"),
        (b"hello", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"model": "a"', "not a JSON object"),
        (b'{"model": "a"} x', "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b'{"messages": ' + b"[" * 100_000, "not a JSON object"),
        (b'{"model": "\xff\xfe"}', "not a JSON object"),
        (b"{}", "names no model"),
        (b'{"model": ""}', "names no model"),
        (b'{"model": 7}', "names no model"),
        (b'{"model": null}', "names no model"),
        (b'{"model": ["a"]}', "names no model"),
    ],
)
def test_a_body_without_a_model_is_told_what_is_wrong(body: bytes, said: str) -> None:
    """400, whatever was sent."""
    with pytest.raises(InvalidRequest, match=said):
        read_envelope(body)


async def test_pieces_are_put_together() -> None:
    """The body is what was sent, in order, and is counted while it is held."""
    budget = BodyBudget(each_bytes=10, total_bytes=10)
    with budget.holding() as held:
        await held.read(scope(), receiving(b"abc", b"", b"def"))
        assert (held.content, held.size_bytes) == (b"abcdef", 6)
        assert budget.held_bytes == 6
    assert budget.held_bytes == 0


async def test_a_declared_length_is_refused_before_it_is_read() -> None:
    """Content-Length alone is enough to know."""
    budget = BodyBudget(each_bytes=10, total_bytes=100)
    with budget.holding() as held:
        with pytest.raises(BodyTooLarge, match="10 bytes"):
            await held.read(scope(content_length="11"), receiving())
        assert budget.held_bytes == 0


async def test_an_undeclared_length_is_counted_while_reading() -> None:
    """A chunked body cannot outgrow the limit, nor one that lies about its length."""
    for headers in ({}, {"content_length": "2"}):
        budget = BodyBudget(each_bytes=10, total_bytes=100)
        with budget.holding() as held, pytest.raises(BodyTooLarge):
            await held.read(scope(**headers), receiving(b"12345", b"67890", b"1", b"never read"))
        assert budget.held_bytes == 0


async def test_all_bodies_together_are_bounded() -> None:
    """The second of two is refused, and fits once the first has gone."""
    budget = BodyBudget(each_bytes=10, total_bytes=15)
    with budget.holding() as first:
        await first.read(scope(), receiving(b"x" * 10))
        with budget.holding() as second, pytest.raises(Overloaded) as caught:
            await second.read(scope(), receiving(b"y" * 10))
        assert caught.value.headers() == {"retry-after": "5"}
    with budget.holding() as third:
        await third.read(scope(), receiving(b"z" * 10))


async def test_a_body_that_went_out_is_held_no_longer() -> None:
    """The share is free as soon as the worker has the body, and is not given back twice."""
    budget = BodyBudget(each_bytes=10, total_bytes=10)
    with budget.holding() as held:
        await held.read(scope(), receiving(b"x" * 10))
        held.let_go()
        assert (budget.held_bytes, held.content) == (0, b"")
    assert budget.held_bytes == 0


async def test_a_client_that_leaves_in_the_middle_is_noticed() -> None:
    """There is nobody to answer."""
    with BodyBudget(each_bytes=10, total_bytes=10).holding() as held, pytest.raises(ClientLeft):
        await held.read(scope(), receiving(b"abc", None))


async def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A named deadline ends a client that sends nothing."""
    monkeypatch.setattr(request_module, "BODY_STALL_SECONDS", 0.01)

    async def receive() -> Any:
        import anyio

        await anyio.sleep_forever()

    with BodyBudget(each_bytes=10, total_bytes=10).holding() as held, pytest.raises(RequestTimeout):
        await held.read(scope(), receive)
