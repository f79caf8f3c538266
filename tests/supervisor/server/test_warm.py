"""Warm starts of a whole server: quicker where they work, and no worse where they do not."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from benchmarks.chaos.faults import templates, words, worker_trees
from local_llm.worker.run_folder import RunFolder
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, health, loads, running, until

READY = "warm template ready"
COLD_FROM_NOW_ON = "a starts cold from now on"


def is_warm(served: Served) -> bool:
    """Whether the one worker was forked from a template."""
    (tree,) = worker_trees(served.process.pid)
    return "--forked" in words(tree.nanny)


def said(served: Served, beginning: str) -> int:
    """How often the log has a line that begins so."""
    return sum(line["message"].startswith(beginning) for line in served.log)


def test_switching(tmp_path: Path) -> None:
    """Templates are made after the start, and every worker comes from one; the end takes them along."""
    models = {"a": CHAT, "b": CHAT, "e": "/v1/embeddings"}
    for name, path in models.items():
        write_fake_model(tmp_path / "models", name, kind="chat" if path == CHAT else "embedding")
    with running(tmp_path, warm="on") as served, served.client() as client:
        for engine in ("vllm", "transformers"):
            served.wait_for_log(READY, engine=engine)
        made = templates(served.process.pid)
        assert len(made) == 2
        for name in ("a", "b", "e", "a", "e"):
            answer = client.post(models[name], json=asking(name, input="text"))
            assert answer.headers["x-fake-model"] == name
            assert is_warm(served)
        assert templates(served.process.pid) == made
        assert served.end() == 0
        assert not any(each.is_running() for each in made)


def test_off(tmp_path: Path) -> None:
    """No template, no word of one."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path, warm="off") as served, served.client() as client:
        assert client.post(CHAT, json=asking("a")).headers["x-fake-model"] == "a"
        assert not is_warm(served)
        assert templates(served.process.pid) == []
        assert not any("template" in line["message"] for line in served.log)


def test_bad_template(tmp_path: Path) -> None:
    """The request is answered all the same; from then on the model starts cold, which is said once."""
    for name in ("a", "b"):
        write_fake_model(tmp_path / "models", name)
    with running(tmp_path, {"FAKE_TEMPLATE": "bad"}, warm="on") as served, served.client() as client:
        for name in ("a", "b", "a"):
            answer = client.post(CHAT, json=asking(name))
            assert (answer.status_code, answer.headers["x-fake-model"]) == (200, name)
            assert not is_warm(served)
        assert said(served, COLD_FROM_NOW_ON) == 1
        assert loads(served) == ["a", "a", "b", "b", "a"]


@pytest.mark.parametrize(("line", "starts"), [("no idea why", 2), ("CUDA out of memory", 1)])
def test_failing_model(tmp_path: Path, line: str, starts: int) -> None:
    """What fails cold too gets the ordinary error, what fails for a usual cause after one start."""
    write_fake_model(tmp_path / "models", "a", die_at_start=3, say=line)
    with running(tmp_path, warm="on") as served, served.client() as client:
        served.wait_for_log(READY)
        answer = client.post(CHAT, json=asking("a"))
        assert answer.status_code == 503
        assert "ended with exit code 3" in answer.json()["error"]["message"]
        assert loads(served) == ["a"] * starts
        assert said(served, COLD_FROM_NOW_ON) == 0


@pytest.mark.parametrize("manner", ["", "endless"])
def test_killed_supervisor(tmp_path: Path, manner: str) -> None:
    """SIGKILL: a template, ready or not, and its worker go at once, the folder with the next run."""
    write_fake_model(tmp_path / "models", "a", leak_child=True)
    with running(tmp_path, {"FAKE_TEMPLATE": manner}, warm="on") as served:
        until(lambda: len(templates(served.process.pid)) == 1)
        if manner == "":
            served.wait_for_log(READY)
            with served.client() as client:
                assert client.post(CHAT, json=asking("a")).status_code == 200
            assert is_warm(served)
        processes = served.descendants()
        assert len(processes) == (4 if manner == "" else 1)
        served.end(signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        with RunFolder():
            pass
        assert not list(Path(tempfile.gettempdir()).glob("local-llm-run-*/*"))


def test_killed_template(tmp_path: Path) -> None:
    """A stream goes on, and the next model comes from a new one."""
    write_fake_model(tmp_path / "models", "a", chunks=3, chunk_seconds=0.2)
    write_fake_model(tmp_path / "models", "b")
    with running(tmp_path, warm="on") as served, served.client() as client:
        served.wait_for_log(READY)
        with client.stream("POST", CHAT, json=asking("a", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            (template,) = templates(served.process.pid)
            seen = len(served.log)
            template.kill()
            text += "".join(pieces)
        assert text.rstrip().endswith("data: [DONE]")
        served.wait_for_log(READY, after=seen)
        assert client.post(CHAT, json=asking("b")).headers["x-fake-model"] == "b"
        assert is_warm(served)
        assert health(served)["status"] == "ok"
