"""Load, unload and rescan, through the real server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, health, loads, running, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("orders")
    models = folder / "models"
    for name in ("org/a", "b"):
        write_fake_model(models, name)
    write_fake_model(models, "streams", chunks=6, chunk_seconds=0.1)
    write_fake_model(models, "dies", die_at_start=3, say="CUDA out of memory")
    (write_fake_model(models, "unfinished") / "model.safetensors").unlink()
    with running(folder) as served:
        yield served


def test_load_answers_when_the_model_is_ready(served: Served) -> None:
    """By any of its names; a second time at once; another one makes it go."""
    mark = len(served.log)
    with served.client() as client:
        for _ in range(2):
            answer = client.post("/admin/load", json={"model": "a"})
            assert (answer.status_code, answer.json()) == (200, {"model": "org/a", "state": "active"})
            assert health(served)["active_model"] == "org/a"
        client.post("/admin/load", json={"model": "b"})
        assert health(served)["active_model"] == "b"
    assert loads(served, mark) == ["org/a", "b"]


def test_load_without_waiting(served: Served) -> None:
    """202 at once; a failure is in the log."""
    with served.client() as client:
        client.post("/admin/unload", json={"model": "b"})
        answer = client.post("/admin/load", json={"model": "b", "wait": False})
        assert (answer.status_code, answer.json()) == (202, {"model": "b", "state": "loading"})
        until(lambda: health(served)["active_model"] == "b")
        assert client.post("/admin/load", json={"model": "dies", "wait": False}).status_code == 202
        served.wait_for_log("dies could not be loaded", level="warning")


def test_a_failed_load_is_told_and_may_be_tried_again(served: Served) -> None:
    """503 with the worker's words; others are kept off during the cooldown, an operator is not."""
    with served.client() as client:
        mark = len(served.log)
        answer = client.post("/admin/load", json={"model": "dies"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_load_failed")
        assert client.post(CHAT, json=asking("dies")).headers["retry-after"]
        assert loads(served, mark) == ["dies"]
        assert client.post("/admin/load", json={"model": "dies"}).status_code == 503
        assert loads(served, mark) == ["dies", "dies"]


def test_unload_lets_running_requests_finish(served: Served) -> None:
    """Then the worker goes, and nothing takes its place."""
    with served.client() as client:
        client.post("/admin/load", json={"model": "streams"})
        with client.stream("POST", CHAT, json=asking("streams", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            told = httpx.post(served.url + "/admin/unload", json={"model": "streams"})
            assert told.json() == {"model": "streams", "state": "unloading"}
            text += "".join(pieces)
        assert text.endswith("data: [DONE]\n\n")
        until(lambda: health(served)["workers"] == [])
        told = client.post("/admin/unload", json={"model": "streams"})
        assert told.json() == {"model": "streams", "state": "idle"}


def test_what_a_removed_folder_left_can_be_unloaded(tmp_path: Path) -> None:
    """The catalogue does not know the model any more, the worker is there all the same."""
    folder = write_fake_model(tmp_path / "models", "org/gone")
    with running(tmp_path) as served, served.client() as client:
        client.post("/admin/load", json={"model": "org/gone"})
        shutil.rmtree(folder)
        assert client.post("/admin/load", json={"model": "org/gone"}).status_code == 404
        assert client.post("/admin/unload", json={"model": "org/gone"}).json()["state"] == "unloading"
        until(lambda: health(served)["workers"] == [])
        assert client.post("/admin/unload", json={"model": "org/gone"}).status_code == 404


def test_an_older_version_is_unloaded_by_the_same_name(tmp_path: Path) -> None:
    """A changed folder is another model to the policy, and the same one to its operator."""
    folder = write_fake_model(tmp_path / "models", "a")
    with running(tmp_path) as served, served.client() as client:
        client.post("/admin/load", json={"model": "a"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "version": 2}))
        assert client.post("/admin/unload", json={"model": "a"}).json()["state"] == "unloading"
        until(lambda: health(served)["workers"] == [])


def test_rescan_tells_what_there_is(tmp_path: Path) -> None:
    """What came and what went, and what is wrong with the rest."""
    models = tmp_path / "models"
    write_fake_model(models, "a")
    with running(tmp_path) as served, served.client() as client:
        assert [each["id"] for each in client.post("/admin/rescan").json()["models"]] == ["a"]
        write_fake_model(models, "org/b", kind="embedding")
        (write_fake_model(models, "unfinished") / "model.safetensors").unlink()
        shutil.rmtree(models / "a")
        told = client.post("/admin/rescan").json()
    assert [(each["id"], each["kind"]) for each in told["models"]] == [("org/b", "embedding")]
    assert [each["id"] for each in told["broken"]] == ["unfinished"]
    assert told["broken"][0]["reason"]


@pytest.mark.parametrize("path", ["/admin/load", "/admin/unload"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"[", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b"{}", 400, "invalid_request"),
        (b'{"model": 7}', 400, "invalid_request"),
        (b'{"model": "b", "wiat": false}', 400, "invalid_request"),
        (b'{"model": "\xff"}', 400, "invalid_request"),
        (b'{"model": "nothing"}', 404, "model_not_found"),
        (b'{"model": "unfinished"}', 503, "model_broken"),
    ],
)
def test_orders_that_cannot_be_followed(
    served: Served, path: str, body: bytes, status: int, code: str
) -> None:
    """Told in OpenAI's shape, and nothing is done."""
    mark = len(served.log)
    with served.client() as client:
        answer = client.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert loads(served, mark) == []


def test_the_wrong_method(served: Served) -> None:
    """405 with the right one."""
    with served.client() as client:
        for method, path, allowed in (
            ("GET", "/admin/load", "POST"),
            ("GET", "/admin/rescan", "POST"),
            ("POST", "/admin/status", "GET"),
            ("POST", "/admin/events", "GET"),
        ):
            answer = client.request(method, path)
            assert answer.status_code == 405
            assert allowed in answer.headers["allow"]
            assert answer.json()["error"]["code"] == "method_not_allowed"
