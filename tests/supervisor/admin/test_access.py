"""Who may use /admin: who brings a key where there are keys, else who sits at the machine."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from local_llm.admin.access import check_local
from local_llm.errors import Forbidden
from tests.supervisor.server.stage import running

HERE = ("127.0.0.1", 5000)
ROUTES = [
    ("GET", "/admin/status"),
    ("GET", "/admin/events"),
    ("POST", "/admin/load"),
    ("POST", "/admin/unload"),
    ("POST", "/admin/rescan"),
]


def scope(client: tuple[str, int] | None, **headers: str) -> dict[str, object]:
    named = {"host": "127.0.0.1:8000", **headers}
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
    return {"type": "http", "client": client, "headers": raw}


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (HERE, {}),
        (("127.8.8.8", 1), {}),
        (("::1", 1), {"host": "[::1]:8000"}),
        (("::ffff:127.0.0.1", 1), {"host": "localhost"}),
        (HERE, {"origin": "http://localhost:3000"}),
    ],
)
def test_who_sits_at_the_machine_is_let_in(client: tuple[str, int], headers: dict[str, str]) -> None:
    """By every name of the loopback; a page that this machine serves, too."""
    check_local(scope(client, **headers))


@pytest.mark.parametrize(
    ("client", "headers", "words"),
    [
        (("10.0.0.7", 1), {}, "another machine"),
        (("::ffff:10.0.0.7", 1), {}, "another machine"),
        (("fe80::1%eth0", 1), {}, "another machine"),
        (None, {}, "another machine"),
        (HERE, {"x_forwarded_for": "127.0.0.1"}, "proxy"),
        (HERE, {"forwarded": "for=10.0.0.7"}, "proxy"),
        (HERE, {"x_real_ip": "10.0.0.7"}, "proxy"),
        (HERE, {"via": "1.1 nginx"}, "proxy"),
        (HERE, {"host": "evil.example:8000"}, "another host"),
        (HERE, {"host": "[::"}, "another host"),
        (HERE, {"host": ""}, "another host"),
        (HERE, {"origin": "https://evil.example"}, "web page"),
        (HERE, {"origin": "null"}, "web page"),
    ],
)
def test_everybody_else_is_not(client: tuple[str, int] | None, headers: dict[str, str], words: str) -> None:
    """Other machines, whoever a proxy speaks for, web pages that the operator looks at."""
    with pytest.raises(Forbidden, match=words):
        check_local(scope(client, **headers))


def test_without_keys(tmp_path: Path) -> None:
    """Local clients only; the others get 403 in OpenAI's shape."""
    with running(tmp_path) as served, served.client() as client:
        assert client.get("/admin/status").status_code == 200
        for method, path in ROUTES:
            answer = client.request(method, path, headers={"x-forwarded-for": "10.0.0.7"})
            assert answer.status_code == 403
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] == "forbidden"
            assert "api_keys" in error["message"]


def test_with_keys(tmp_path: Path) -> None:
    """The key decides, wherever the client is."""
    with running(tmp_path, api_keys=["secret"]) as served, served.client() as client:
        for method, path in ROUTES:
            assert client.request(method, path).status_code == 401
        elsewhere = {"authorization": "Bearer secret", "x-forwarded-for": "10.0.0.7"}
        answer = client.get("/admin/status", headers=elsewhere)
        assert answer.status_code == 200
        assert "secret" not in answer.text


def test_switched_off(tmp_path: Path) -> None:
    """`admin: false`: as if there were no such paths."""
    with running(tmp_path, admin=False) as served, served.client() as client:
        answers: list[httpx.Response] = [client.request(method, path) for method, path in ROUTES]
        assert {(each.status_code, each.json()["error"]["code"]) for each in answers} == {(404, "not_found")}
