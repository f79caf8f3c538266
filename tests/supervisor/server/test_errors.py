"""What clients are told: the status, OpenAI's shape, and the right exception in both SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from local_llm.gateway.endpoints import ENDPOINTS, BodyForm
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, loads, running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("errors")
    models = folder / "models"
    write_fake_model(models, "org/Llama-Chat")
    write_fake_model(models, "one/twin")
    write_fake_model(models, "two/twin")
    write_fake_model(models, "base", kind="base")
    write_fake_model(models, "embedder", kind="embedding")
    write_fake_model(models, "reranker", kind="reranker")
    write_fake_model(models, "classifier", kind="classifier")
    write_fake_model(models, "dies", die_at_start=3, say="CUDA out of memory")
    write_fake_model(models, "cut", die_mid_stream=2)
    write_fake_model(models, "half", die_mid_answer=True)
    (write_fake_model(models, "unfinished") / "model.safetensors").unlink()
    with running(folder, aliases={"gpt-4o": "org/Llama-Chat"}) as served:
        yield served


def error_of(answer: Any) -> dict[str, Any]:
    """The error object, after a look at its shape."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


ODD_NAMES = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "models/../../x",
    "a\u0000b",
    "x" * 100_000,
    "\x1b[2J",
    "org/Llama-Chat/",
    "org//Llama-Chat",
    "*",
    " ",
    "twin",
    "file:///etc/passwd",
    "\U0001f600",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: repr(name[:20]))
def test_a_name_is_only_ever_looked_up(served: Served, name: str) -> None:
    """What looks like a path, what is ambiguous, what is absurd: just unknown models, said in short."""
    mark = len(served.log)
    with served.client() as client:
        answer = client.post(CHAT, json=asking(name))
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert len(error["message"]) < 500
    assert loads(served, mark) == []
    line = served.wait_for_log(CHAT, after=mark, status=404)
    assert len(line["model"]) <= 130


@pytest.mark.parametrize(
    ("name", "near"),
    [("llama-chat", "org/Llama-Chat"), ("org/LLama-Chat", "org/Llama-Chat"), ("rerankr", "reranker")],
)
def test_an_unknown_model_is_told_with_the_nearest(served: Served, name: str, near: str) -> None:
    """A wrong case, a slip of the finger."""
    with served.client() as client:
        assert repr(near) in error_of(client.post(CHAT, json=asking(name)))["message"]
        assert repr(near) in error_of(client.get(f"/v1/models/{name}"))["message"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_request", None),
        (b"{", "invalid_request", None),
        (b"[]", "invalid_request", None),
        (b"null", "invalid_request", None),
        (b'"a"', "invalid_request", None),
        (b'{"model": "base"} x', "invalid_request", None),
        (b'{"model": "base", "x": NaN}', "invalid_request", None),
        (b"model=base", "invalid_request", None),
        (b"\xff\xfe{", "invalid_request", None),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_request", None),
        (b"{}", "invalid_request", "model"),
        (b'{"model": null}', "invalid_request", "model"),
        (b'{"model": ""}', "invalid_request", "model"),
        (b'{"model": 7}', "invalid_request", "model"),
        (b'{"model": ["base"]}', "invalid_request", "model"),
        (b'{"model": {"id": "base"}}', "invalid_request", "model"),
    ],
)
def test_a_body_that_cannot_be_routed(served: Served, body: bytes, code: str, param: str | None) -> None:
    """No JSON, no object, no model, a model that is no text."""
    with served.client() as client:
        answer = client.post(CHAT, content=body)
    error = error_of(answer)
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error["code"], error["param"]) == (code, param)


FITTING = {
    "org/Llama-Chat": {"chat", "base"},
    "base": {"base"},
    "embedder": {"embedding"},
    "reranker": {"reranker"},
    "classifier": {"classifier"},
}


@pytest.mark.parametrize("model", FITTING)
def test_the_wrong_kind_is_told_before_anything_is_switched(served: Served, model: str) -> None:
    """Every path that is not for the model says so, what it is instead, and why; no worker is launched."""
    mark = len(served.log)
    refused = 0
    with served.client() as client:
        for path, endpoint in ENDPOINTS.items():
            if {kind.value for kind in endpoint.kinds} & FITTING[model]:
                continue
            if endpoint.body is BodyForm.MULTIPART:
                answer = client.post(path, data={"model": model}, files={"file": b"RIFF"})
            else:
                answer = client.post(path, json=asking(model))
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "wrong_model_kind", "model")
            assert repr(model) in error["message"]
            assert path in error["message"]
            refused += 1
    assert refused >= 5
    assert loads(served, mark) == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/embeddings", "/rerank"])
def test_a_wrong_method_on_a_workers_path(served: Served, path: str, method: str) -> None:
    """405 with Allow."""
    with served.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/base"])
def test_methods_on_what_is_answered_here(served: Served, path: str) -> None:
    """GET and HEAD; others are told which."""
    with served.client() as client:
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert get.status_code == 200
        assert head.headers["content-type"] == get.headers["content-type"]
        for method in ("POST", "DELETE", "OPTIONS"):
            answer = client.request(method, path)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
            assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/nothing",
        "/metrics",
        "/invocations",
        "/docs",
        "/v1/chat/completions/",
        "//health",
        "/%00",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path(served: Served, path: str, method: str) -> None:
    """404 with those there are; what only a worker has is not reachable from outside."""
    with served.client() as client:
        answer = client.request(method, path)
    assert answer.status_code == 404
    error = error_of(answer)
    assert error["code"] == "not_found"
    assert CHAT in error["message"]


def test_a_broken_folder_is_told_with_its_reason(served: Served) -> None:
    """It is not offered, and who asks for it is told what is missing."""
    with served.client() as client:
        assert "unfinished" not in [each["id"] for each in client.get("/v1/models").json()["data"]]
        for answer in (client.post(CHAT, json=asking("unfinished")), client.get("/v1/models/unfinished")):
            error = error_of(answer)
            assert (answer.status_code, error["code"]) == (503, "model_broken")
            assert "safetensors" in error["message"] or "weights" in error["message"]


@pytest.fixture
def openai_client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(served: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=served.url, api_key="unused", max_retries=0) as client:
        yield client


HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        ("nowhere", openai.NotFoundError, "model_not_found"),
        ("embedder", openai.BadRequestError, "wrong_model_kind"),
        ("", openai.BadRequestError, "invalid_request"),
        ("unfinished", openai.InternalServerError, "model_broken"),
        ("dies", openai.InternalServerError, "model_load_failed"),
        ("half", openai.APIConnectionError, None),
    ],
)
def test_what_openais_sdk_raises(
    openai_client: openai.OpenAI, model: str, error: type[openai.APIError], code: str | None
) -> None:
    """The class a program would catch, with our code and words."""
    with pytest.raises(error) as raised:
        openai_client.chat.completions.create(model=model, messages=HELLO)
    assert raised.value.code == code
    if model == "dies":
        assert "exit code 3" in str(raised.value)
        assert "smaller or quantized" in str(raised.value)


@pytest.mark.parametrize(
    ("model", "error", "kind"),
    [
        ("nowhere", anthropic.NotFoundError, "not_found_error"),
        ("embedder", anthropic.BadRequestError, "invalid_request_error"),
        ("", anthropic.BadRequestError, "invalid_request_error"),
        ("unfinished", anthropic.InternalServerError, "api_error"),
    ],
)
def test_what_anthropics_sdk_raises(
    anthropic_client: anthropic.Anthropic, model: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    """The same for /v1/messages, in its own words."""
    with pytest.raises(error) as raised:
        anthropic_client.messages.create(model=model, messages=HELLO, max_tokens=5)
    body: Any = raised.value.body
    assert body["type"] == "error"
    assert body["error"]["message"]
    assert body["error"]["type"] == kind


def test_both_sdks_are_answered(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    """By id, short name and alias, plain and streaming."""
    for name in ("org/Llama-Chat", "Llama-Chat", "gpt-4o"):
        answer = openai_client.chat.completions.create(model=name, messages=HELLO)
        assert answer.choices[0].message.content == "I am org/Llama-Chat"
        with openai_client.chat.completions.create(model=name, messages=HELLO, stream=True) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == "token0 token1 token2 token3 token4 "
    message = anthropic_client.messages.create(model="gpt-4o", messages=HELLO, max_tokens=5)
    assert message.content[0].to_dict() == {"type": "text", "text": "I am org/Llama-Chat"}


def test_a_stream_that_breaks_off_raises_in_openais_sdk(openai_client: openai.OpenAI) -> None:
    """What had come is delivered first; never an end that looks like one."""
    texts: list[str | None] = []
    with (
        openai_client.chat.completions.create(model="cut", messages=HELLO, stream=True) as stream,
        pytest.raises(openai.APIError, match="SIGKILL"),
    ):
        texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert texts == ["token0 ", "token1 "]


def test_a_stream_that_breaks_off_raises_in_anthropics_sdk(anthropic_client: anthropic.Anthropic) -> None:
    """A plain data line would end it without an error: it has its named event."""
    deltas: list[Any] = []
    with (
        anthropic_client.messages.create(model="cut", messages=HELLO, max_tokens=5, stream=True) as stream,
        pytest.raises(anthropic.APIError, match="SIGKILL"),
    ):
        deltas.extend(event.to_dict()["delta"] for event in stream)
    assert [each["text"] for each in deltas] == ["token0 ", "token1 "]


def test_errors_on_messages_have_both_shapes(served: Served) -> None:
    """Anthropic's `type: error` around OpenAI's object, whoever reads it; also where the method is wrong."""
    with served.client() as client:
        answers = [client.post("/v1/messages", json=asking("nowhere")), client.get("/v1/messages")]
    for answer in answers:
        body = json.loads(answer.text)
        assert body["type"] == "error"
        assert set(body["error"]) == {"message", "type", "param", "code"}
