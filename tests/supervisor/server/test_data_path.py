"""One request through the server and back: nothing but the hop's own headers is changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import anyio
import httpx
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import (
    CHAT,
    asking,
    connect,
    next_answer,
    read_answer,
    request_bytes,
    running,
    the_engine,
)

ALL_PATHS = {
    "a": [
        CHAT,
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/tokenize",
        "/detokenize",
    ],
    "e": ["/v1/embeddings"],
    "r": ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"],
}

BODIES = {
    "odd whitespace": b' \r\n\t{ "model" :\n"a"  ,\t"messages":[ ] }\n\n ',
    "unicode escapes": b'{"model":"\\u0061","x":"\\u00e9 \\ud83d\\ude00 \xc3\xa9 \\/ \\u0000"}',
    "duplicate keys": b'{"model":"e","x":1,"x":2,"model":"a"}',
    "numbers that a float would lose": b'{"model":"a","x":[1.00,123456789012345678901234567890,1e999,-0.0]}',
    "bytes that are no UTF-8": b'{"model":"a","x":"\xff\xfe"}',
    "a megabyte to the byte": b'{"model":"a","x":"' + b"y" * ((1 << 20) - 20) + b'"}',
    "three megabytes": b'{"x":"' + b"0123456789abcdef" * 200_000 + b'","model":"a"}',
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("data_path")
    models = folder / "models"
    write_fake_model(models, "a")
    write_fake_model(models, "e", kind="embedding")
    write_fake_model(models, "r", kind="reranker")
    write_fake_model(models, "refuses", status=422)
    write_fake_model(models, "limits", status=429)
    write_fake_model(models, "slow", chunks=4, chunk_seconds=0.3)
    with running(folder) as served:
        yield served


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_arrives_byte_for_byte(served: Served, body: bytes, chunked: bool) -> None:
    """Whatever JSON allows, and however the client cuts it into pieces."""
    pieces = (body[at : at + 65_537] for at in range(0, len(body), 65_537))
    with served.client() as client:
        answer = client.post(CHAT, content=pieces if chunked else body)
    assert answer.status_code == 200
    assert answer.headers["x-fake-model"] == "a"
    assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("model", ALL_PATHS)
def test_every_path_reaches_its_worker(served: Served, model: str) -> None:
    """The worker has them all under the same names."""
    with served.client() as client:
        for path in ALL_PATHS[model]:
            answer = client.post(path, json={"model": model})
            assert (answer.status_code, answer.headers["x-fake-model"]) == (200, model), path


@pytest.mark.parametrize(
    "query", ["a=%2Fx%20y&b=c+d&a=2&empty=&flag&u=%C3%A9", "%7Ex=~&x=%41&;=,", "q=a?b=c#d"]
)
def test_the_query_is_kept_as_it_is_written(served: Served, query: str) -> None:
    """Not decoded, not sorted, not escaped anew."""
    with connect(served) as connection:
        connection.sendall(request_bytes(f"{CHAT}?{query}", json.dumps(asking("a")).encode()))
        answer = read_answer(connection)
    assert answer.status == 200
    assert answer.headers["x-fake-query"] == query.partition("#")[0]


def test_which_headers_a_worker_sees(served: Served) -> None:
    """Not the client's keys, not what concerns this hop alone; all others."""
    request = request_bytes(
        CHAT,
        json.dumps(asking("a")).encode(),
        b"Authorization: Bearer clients-own",
        b"X-Api-Key: clients-own",
        b"Proxy-Authorization: Basic eA==",
        b"Connection: keep-alive, X-For-This-Hop",
        b"Connection: X-Also-This-Hop",
        b"X-For-This-Hop: 1",
        b"X-Also-This-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Trailer: x-sum",
        b"Content-Type: application/json",
        b"Cookie: a=b",
        b"Traceparent: 00-1-2-3",
        b"X-Custom: kept",
        "X-Echo: grüße".encode(),
    )
    with connect(served) as connection:
        connection.sendall(request)
        answer = read_answer(connection)
    seen = set(answer.headers["x-fake-headers"].split(","))
    # `authorization` is the worker's own key: with the client's, the worker would have refused.
    own = {"authorization", "content-length", "host"}
    assert seen == own | {"content-type", "cookie", "traceparent", "x-custom", "x-echo"}
    assert answer.status == 200
    assert answer.headers["x-fake-echo"].encode("latin-1").decode() == "grüße"


@pytest.mark.parametrize(("model", "status"), [("refuses", 422), ("limits", 429)])
def test_an_error_of_the_worker_passes_unchanged(served: Served, model: str, status: int) -> None:
    """Its status, its headers, its body: the supervisor has nothing to add."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking(model))
    assert answer.status_code == status
    assert answer.json() == {"error": {"message": "as told", "code": status}}
    assert answer.headers["x-fake-model"] == model


def test_the_answers_framing_is_kept(served: Served) -> None:
    """A Content-Length stays one; its type is the worker's."""
    with served.client() as client:
        answer = client.post(CHAT, json=asking("a"))
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"]["content"] == "I am a"


@pytest.mark.parametrize("given", ["my-request.1:a_B", "with spaces", "x" * 129, ""])
def test_every_answer_has_a_request_id(served: Served, given: str) -> None:
    """The client's own if it is plain, a fresh one otherwise; errors have one, too."""
    plain = given == "my-request.1:a_B"
    with served.client(headers={"x-request-id": given}) as client:
        for model, status in [("a", 200), ("nowhere", 404)]:
            answer = client.post(CHAT, json=asking(model))
            assert answer.status_code == status
            assert (answer.headers["x-request-id"] == given) is plain
            assert answer.headers["x-request-id"]
        for method, path in [("GET", "/health"), ("GET", "/v1/models"), ("GET", CHAT), ("POST", "/nowhere")]:
            found = client.request(method, path).headers.get_list("x-request-id")
            assert len(found) == 1
            assert (found == [given]) is plain


def test_expect_100_continue(served: Served) -> None:
    """curl waits for the go-ahead before it sends a large body."""
    body = json.dumps(asking("a")).encode()
    head, _, _ = request_bytes(CHAT, body, b"Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(served) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        answer = read_answer(connection)
    assert answer.status == 200
    assert "expect" not in answer.headers["x-fake-headers"].split(",")


@pytest.mark.parametrize("offer", ["Upgrade: h2c", "upgrade: websocket", "UPGRADE:foo/2, h2c"])
def test_an_offer_to_upgrade_is_passed_over(served: Served, offer: str) -> None:
    """Java's HttpClient offers HTTP/2 on every request, with the body right behind."""
    body = json.dumps(asking("a", text="\r\nUpgrade: not a header\r\n")).encode()
    with connect(served) as connection:
        for _ in range(2):
            connection.sendall(
                request_bytes(
                    CHAT,
                    body,
                    b"Connection: Upgrade, HTTP2-Settings",
                    offer.encode(),
                    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk",
                )
            )
            answer = read_answer(connection)
            assert answer.status == 200
            assert answer.headers["x-fake-body"] == hashlib.sha256(body).hexdigest()


def test_every_answer_has_one_date(served: Served) -> None:
    """The worker's and the server's own would be two."""
    with served.client() as client:
        assert len(client.post(CHAT, json=asking("a")).headers.get_list("date")) == 1
        assert len(client.get("/health").headers.get_list("date")) == 1


def test_requests_that_come_back_to_back_on_one_connection(served: Served) -> None:
    """Pipelined: each gets its own answer, in order."""
    requests = [request_bytes(CHAT, json.dumps(asking("a", n=number)).encode()) for number in range(3)]
    with connect(served) as connection, connection.makefile("rb") as file:
        connection.sendall(b"".join(requests))
        answers = [next_answer(file) for _ in requests]
    bodies = [request.partition(b"\r\n\r\n")[2] for request in requests]
    assert [answer.headers["x-fake-body"] for answer in answers] == [
        hashlib.sha256(body).hexdigest() for body in bodies
    ]


def test_chunks_arrive_as_they_are_made(served: Served) -> None:
    """Every piece is here while the worker still works on the next ones; the first one at once."""
    with served.client() as client:
        client.post(CHAT, json=asking("slow"))
        engine = the_engine(served)
        with client.stream("POST", CHAT, json=asking("slow", stream=True)) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            seen = [(piece, engine.metric("num_requests_running")) for piece in answer.iter_raw()]
    tokens = [(piece, busy) for piece, busy in seen if b"token" in piece]
    assert [piece.count(b"token") for piece, _ in tokens] == [1, 1, 1, 1]
    assert [busy for _, busy in tokens] == [1.0] * 4
    assert b"".join(piece for piece, _ in seen).endswith(b"data: [DONE]\n\n")


async def test_an_asynchronous_client_streams(served: Served) -> None:
    """The same with many at once on one worker."""
    texts: list[str] = []

    async def one(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", CHAT, json=asking("a", stream=True)) as answer:
            texts.append((await answer.aread()).decode())

    async with served.async_client() as client, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one, client)
    assert len(texts) == 20
    assert all(text.count("token") == 5 and text.endswith("[DONE]\n\n") for text in texts)
