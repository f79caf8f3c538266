"""Who may come in by the front door, and that there is no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from local_llm.gateway.endpoints import ENDPOINTS
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, running, the_engine

FROM_SETTINGS, FROM_FILE = "key-of-the-settings", "key-of-the-file"
EVERY_PATH = [*ENDPOINTS, "/v1/models", "/v1/models/a", "/", "/metrics", "/nothing", "/health/", "/v1"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("keys")
    write_fake_model(folder / "models", "a")
    (folder / "keys").write_text(f"# of Tuesday\n\n  {FROM_FILE}  \n")
    with running(folder, api_keys=[FROM_SETTINGS], api_keys_file=str(folder / "keys")) as served:
        yield served


@pytest.mark.parametrize("path", EVERY_PATH)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_every_path_wants_a_key(served: Served, path: str, method: str) -> None:
    """Even those that do not exist: what there is is nobody's business either."""
    with served.client() as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    if method != "HEAD":
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_health_wants_none(served: Served) -> None:
    """A container's health check has no key."""
    with served.client() as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("key", [FROM_SETTINGS, FROM_FILE])
@pytest.mark.parametrize(
    "header", ["Authorization: Bearer {}", "authorization: bearer   {}", "X-Api-Key: {}"]
)
def test_a_known_key(served: Served, key: str, header: str) -> None:
    """As OpenAI's and as Anthropic's clients send it; it does not go further than here."""
    name, _, value = header.format(key).partition(": ")
    with served.client(headers={name: value}) as client:
        assert client.get("/v1/models").status_code == 200
        answer = client.post(CHAT, json=asking("a"))
        assert answer.status_code == 200
        assert "x-api-key" not in answer.headers["x-fake-headers"].split(",")
    assert the_engine(served).key not in (FROM_SETTINGS, FROM_FILE)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": FROM_SETTINGS},
        {"authorization": f"Basic {FROM_SETTINGS}"},
        {"authorization": f"Bearer {FROM_SETTINGS}x"},
        {"authorization": f"Bearer {FROM_SETTINGS[:-1]}"},
        {"authorization": f"Bearer {FROM_SETTINGS.upper()}"},
        {"x-api-key": ""},
        {"x-api-key": "# of Tuesday"},
        {"x-api-key": f"Bearer {FROM_SETTINGS}"},
        {"api-key": FROM_SETTINGS},
        {"cookie": f"x-api-key={FROM_SETTINGS}"},
    ],
)
def test_no_known_key(served: Served, headers: dict[str, str]) -> None:
    """Nothing that only comes near."""
    with served.client() as client:
        assert client.get("/v1/models", headers=headers).status_code == 401
        assert client.get("/v1/models", params={"api_key": FROM_SETTINGS}).status_code == 401


def test_one_of_two_headers_is_enough(served: Served) -> None:
    """A client library that always sends a placeholder in the other one."""
    with served.client(headers={"authorization": "Bearer none", "x-api-key": FROM_FILE}) as client:
        assert client.get("/v1/models").status_code == 200


def test_both_sdks(served: Served) -> None:
    """The right key is answered, a wrong one is their AuthenticationError."""
    url = f"{served.url}/v1"
    with openai.OpenAI(base_url=url, api_key=FROM_SETTINGS, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["a"]
    with (
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
    hello: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hello"}]
    with anthropic.Anthropic(base_url=served.url, api_key=FROM_FILE, max_retries=0) as claude:
        assert claude.messages.create(model="a", max_tokens=5, messages=hello).model == "a"
    with (
        anthropic.Anthropic(base_url=served.url, api_key="wrong", max_retries=0) as claude,
        pytest.raises(anthropic.AuthenticationError),
    ):
        claude.messages.create(model="a", max_tokens=5, messages=hello)


def test_a_worker_lets_nobody_in_but_the_supervisor(served: Served) -> None:
    """Its port is on the loopback for everybody on the host: no path of it answers without its own key."""
    with served.client(headers={"x-api-key": FROM_SETTINGS}) as client:
        assert client.post(CHAT, json=asking("a")).status_code == 200
    engine = the_engine(served)
    for path in ("/health", "/v1/models", "/metrics", "/invocations", "/tokenize", CHAT):
        for headers in ({}, {"authorization": f"Bearer {FROM_SETTINGS}"}, {"x-api-key": engine.key}):
            assert httpx.get(engine.url + path, headers=headers).status_code == 401
            assert httpx.post(engine.url + path, headers=headers, json=asking("a")).status_code == 401
    assert engine.get("/v1/models", key=engine.key).json()["data"][0]["id"] == "a"


def test_a_worker_knows_none_of_the_clients_keys(tmp_path: Path) -> None:
    """Its environment has neither our variables nor other services' keys; its command line has no key."""
    write_fake_model(tmp_path / "models", "a")
    environment = {"LOCAL_LLM_API_KEYS": "from-the-environment", "OPENAI_API_KEY": "of-another-service"}
    with running(tmp_path, environment) as served, served.client() as client:
        assert client.post(CHAT, json=asking("a")).status_code == 401
        key = {"authorization": "Bearer from-the-environment"}
        assert client.post(CHAT, json=asking("a"), headers=key).status_code == 200
        engine = the_engine(served)
        told = str(engine.process.environ())
        assert "from-the-environment" not in told
        assert "of-another-service" not in told
        for process in served.descendants():
            assert engine.key not in " ".join(process.cmdline())
