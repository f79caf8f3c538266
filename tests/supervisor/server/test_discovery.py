"""The models folder changes while the server runs: no restart."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, engine_processes, health, loads, running, until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("discovery")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    write_fake_model(folder / "models", "always")
    with running(folder) as served:
        yield served


def listed(client: httpx.Client) -> set[str]:
    """The ids that GET /v1/models offers."""
    return {each["id"] for each in client.get("/v1/models").json()["data"]}


def test_a_folder_comes_and_goes(served: Served, folder: Path) -> None:
    """Served at the next request, listed at the next look; unknown again once it is removed."""
    with served.client() as client:
        assert client.post(CHAT, json=asking("new")).status_code == 404
        path = write_fake_model(folder / "models", "new")
        assert client.post(CHAT, json=asking("new")).headers["x-fake-model"] == "new"
        assert "new" in listed(client)
        shutil.rmtree(path)
        assert "new" not in listed(client)
        answer = client.post(CHAT, json=asking("new"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_nested_folder_comes(served: Served, folder: Path) -> None:
    """In a new organisation and in one that is there; the short name works while it is unambiguous."""
    with served.client() as client:
        write_fake_model(folder / "models", "org/first")
        assert client.post(CHAT, json=asking("first")).headers["x-fake-model"] == "org/first"
        write_fake_model(folder / "models", "org/second")
        assert client.post(CHAT, json=asking("second")).headers["x-fake-model"] == "org/second"
        write_fake_model(folder / "models", "rival/second")
        assert {"org/second", "rival/second"} <= listed(client)
        answer = client.post(CHAT, json=asking("second"))
        assert answer.status_code == 404
        assert "'org/second', 'rival/second'" in answer.json()["error"]["message"]


def test_the_hugging_face_cache_layout(served: Served, folder: Path) -> None:
    """As `huggingface-cli download` writes it: links into blobs, the revision behind refs/main."""
    with served.client() as client:
        cache = folder / "models" / "models--acme--mini"
        plain = write_fake_model(folder, "plain")
        (cache / "refs").mkdir(parents=True)
        (cache / "blobs").mkdir()
        snapshot = cache / "snapshots" / "abc123"
        snapshot.mkdir(parents=True)
        for number, file in enumerate(sorted(plain.iterdir())):
            blob = cache / "blobs" / f"{number:x}"
            shutil.move(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
        (cache / "refs" / "main").write_text("abc123")
        assert client.post(CHAT, json=asking("acme/mini")).headers["x-fake-model"] == "acme/mini"
        assert client.get("/v1/models/acme/mini").json()["owned_by"] == "acme"


def test_a_changed_folder_gets_a_fresh_worker(served: Served, folder: Path) -> None:
    """The old version's worker is replaced at the next request; a request that runs on it ends in peace."""
    path = write_fake_model(folder / "models", "changes", chunks=5, chunk_seconds=0.2)
    with served.client() as client:
        first = client.post(CHAT, json=asking("changes")).headers["x-fake-pid"]
        assert client.post(CHAT, json=asking("changes")).headers["x-fake-pid"] == first
        with client.stream("POST", CHAT, json=asking("changes", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
            text += "".join(pieces)
        assert text.endswith("[DONE]\n\n")
        second = client.post(CHAT, json=asking("changes"))
        assert second.status_code == 200
        assert second.headers["x-fake-pid"] != first
        assert client.get("/v1/models/changes").json()["context_length"] == 4096
        assert client.get("/v1/models/changes").json()["state"] == "active"
    assert len(engine_processes(served)) == 1


def test_a_folder_breaks_and_is_mended(served: Served, folder: Path) -> None:
    """While it is incomplete it is not offered and says why; the others are not hidden; mended, it serves."""
    path = write_fake_model(folder / "models", "download")
    shards = {
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    }
    weights = path / "model.safetensors"
    first, second = (path / name for name in shards["weight_map"].values())
    with served.client() as client:
        shutil.copy(weights, first)
        weights.rename(second)
        (path / "model.safetensors.index.json").write_text(json.dumps(shards))
        second.rename(path / "kept")
        assert "download" not in listed(client)
        assert "always" in listed(client)
        mark = len(served.log)
        answer = client.post(CHAT, json=asking("download"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_broken")
        assert second.name in answer.json()["error"]["message"]
        assert loads(served, mark) == []
        (path / "kept").rename(second)
        assert client.post(CHAT, json=asking("download")).headers["x-fake-model"] == "download"


def test_the_folder_of_the_active_model_goes(served: Served, folder: Path) -> None:
    """It is unknown from then on; its worker makes room for the next model as any other does."""
    path = write_fake_model(folder / "models", "fleeting")
    with served.client() as client:
        assert client.post(CHAT, json=asking("fleeting")).status_code == 200
        shutil.rmtree(path)
        assert client.post(CHAT, json=asking("fleeting")).status_code == 404
        assert client.post(CHAT, json=asking("always")).headers["x-fake-model"] == "always"
    assert [each["model"] for each in health(served)["workers"]] == ["always"]


def test_one_model_by_its_id(served: Served, folder: Path) -> None:
    """With a slash in the path as it is or escaped, as the SDKs write it; by its short name, too."""
    write_fake_model(folder / "models", "lab/unique")
    with served.client() as client:
        for path in ("lab/unique", "lab%2Funique", "unique"):
            answer = client.get(f"/v1/models/{path}")
            assert (answer.status_code, answer.json()["id"]) == (200, "lab/unique"), path
        for path in ("nowhere", "lab", "..%2F..%2Fetc%2Fpasswd", "lab/unique/config.json", "%00"):
            answer = client.get(f"/v1/models/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), path
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=0) as sdk:
        assert sdk.models.retrieve("lab/unique").owned_by == "lab"
        assert "lab/unique" in [model.id for model in sdk.models.list()]
        with pytest.raises(openai.NotFoundError):
            sdk.models.retrieve("nowhere")


def test_the_models_folder_itself_goes_and_comes_back(tmp_path: Path) -> None:
    """A disk that is unmounted: said as what it is, not as an internal error; mended without a restart."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path) as served, served.client() as client:
        assert client.post(CHAT, json=asking("a")).status_code == 200
        (tmp_path / "models").rename(tmp_path / "away")
        for answer in (client.get("/v1/models"), client.post(CHAT, json=asking("a"))):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "models_dir_unreadable")
            assert str(tmp_path / "models") in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200
        (tmp_path / "away").rename(tmp_path / "models")
        until(lambda: client.post(CHAT, json=asking("a")).status_code == 200)
        assert not [line for line in served.log if line["level"] == "error"]
