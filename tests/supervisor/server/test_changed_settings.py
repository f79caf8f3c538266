"""The settings file of a server that serves is changed: what is touched is restarted, the rest goes on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.chaos.faults import templates
from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, engine_processes, running, until
from tests.supervisor.server.test_warm import is_warm
from tests.supervisor.test_cli import run


def file_of(folder: Path) -> Path:
    return folder / "local-llm.yaml"


def write(folder: Path, text: str) -> None:
    """Puts another settings file in the place of the one there is."""
    new = folder / "new.yaml"
    new.write_text(text)
    new.replace(file_of(folder))


def change(served: Served, folder: Path, **settings: Any) -> None:
    """Changes settings, and returns when the server has taken them in."""
    mark = len(served.log)
    write(folder, yaml.safe_dump({**yaml.safe_load(file_of(folder).read_text()), **settings}))
    served.wait_for_log("settings applied", after=mark)


def engine_of(served: Served, model: str) -> psutil.Process:
    """The program that runs a model."""
    (found,) = [each for each in engine_processes(served) if model in each.cmdline()]
    return found


def ask(served: Served, model: str, path: str = CHAT) -> str:
    """Asks, and returns the process that answered."""
    with served.client() as client:
        answer = client.post(path, json=asking(model, input="x"))
    assert answer.status_code == 200, answer.text
    return answer.headers["x-fake-pid"]


def test_one_model_is_changed_while_another_streams(tmp_path: Path) -> None:
    """The stream goes on to its end; the changed model goes, and comes back with its new arguments."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "b", chunks=40, chunk_seconds=0.1)
    with running(tmp_path, residency={"max_models": 2}) as served, served.client() as client:
        first = ask(served, "a")
        with client.stream("POST", CHAT, json=asking("b", stream=True)) as answer:
            pieces = answer.iter_text()
            got = next(pieces)
            change(served, tmp_path, models={"a": {"args": ["--answer-seconds", 0.01], "env": {"MARK": "x"}}})
            served.wait_for_log("worker gone", model="a")
            second = ask(served, "a")
            engine = engine_of(served, "a")
            got += "".join(pieces)
        assert got.count("token") == 40
        assert "[DONE]" in got
        assert (second, engine.pid) == (str(engine.pid), int(second))
        assert second != first
        assert "--answer-seconds" in engine.cmdline()
        assert engine.environ()["MARK"] == "x"
        assert answer.headers["x-fake-pid"] == ask(served, "b")
        stopping = served.wait_for_log("worker stopping", model="a")
        assert stopping["reason"] == "its settings have changed"


def test_a_change_that_touches_no_worker(tmp_path: Path) -> None:
    """Limits, and what others are started with: the same process answers."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "e", kind="embedding")
    engines = {"vllm": {}, "transformers": {"max_batch_tokens": 99}}
    with running(tmp_path) as served:
        first = ask(served, "a")
        now = yaml.safe_load(file_of(tmp_path).read_text())["engines"]
        change(
            served,
            tmp_path,
            engines={name: {**now[name], **engines[name]} for name in now},
            models={"e": {"args": ["--chunks", 3]}, "a": {"memory_bytes": 1, "fit": "off"}},
            residency={"max_models": 2, "keep": ["a"]},
            stop={"grace_seconds": 3},
        )
        ask(served, "e", "/v1/embeddings")
        assert ask(served, "a") == first
        assert {"99", "--chunks"} <= set(engine_of(served, "e").cmdline())


def test_an_alias_answers_at_once(tmp_path: Path) -> None:
    """At the top or under the model; what was one is none any more."""
    write_fake_model(tmp_path / "models", "org/a")
    with running(tmp_path, aliases={"old": "org/a"}) as served, served.client() as client:
        ask(served, "old")
        change(served, tmp_path, aliases={"gpt": "org/a"}, models={"org/a": {"aliases": ["claude"]}})
        for name in ("gpt", "claude", "a"):
            ask(served, name)
        answer = client.post(CHAT, json=asking("old"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        change(served, tmp_path, aliases={"gpt": "nothing"})
        served.wait_for_log("alias 'gpt' is left out: there is no model 'nothing'")


def test_an_engine_is_changed(tmp_path: Path) -> None:
    """All of its models are touched, and no other engine's."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "e", kind="embedding")
    with running(tmp_path, residency={"max_models": 2}) as served:
        chat, embedding = ask(served, "a"), ask(served, "e", "/v1/embeddings")
        engines = yaml.safe_load(file_of(tmp_path).read_text())["engines"]
        engines["vllm"]["args"] = ["--chunks", 2]
        change(served, tmp_path, engines=engines)
        assert ask(served, "e", "/v1/embeddings") == embedding
        assert ask(served, "a") != chat
        assert "--chunks" in engine_of(served, "a").cmdline()


def test_a_failed_model_is_mended(tmp_path: Path) -> None:
    """Its cooldown was the old settings'."""
    write_fake_model(tmp_path / "models", "a")
    with (
        running(tmp_path, models={"a": {"args": ["--die-at-start", 3]}}) as served,
        served.client() as client,
    ):
        assert client.post(CHAT, json=asking("a")).status_code == 503
        change(served, tmp_path, models={"a": {}})
        ask(served, "a")


def test_a_bad_file_is_refused(tmp_path: Path) -> None:
    """Told with line and key in the log and to `local-llm status`; the old settings stay, the server too."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path, aliases={"x": "a"}) as served, served.client() as client:
        first = ask(served, "x")
        good = file_of(tmp_path).read_text()
        write(tmp_path, f"{good}\nmodels:\n  a:\n    gpus: '0,1'\n")
        said = f"line {good.count(chr(10)) + 4}: models.a.gpus: should be a count or a list of numbers"
        refused = served.wait_for_log("settings refused, the old ones stay")
        assert (refused["level"], str(file_of(tmp_path)) in refused["message"]) == ("error", True)
        assert said in refused["message"]
        assert ask(served, "x") == first
        told = client.get("/admin/status").json()["settings"]
        assert said in told["refused"]
        shown = run("status", "--url", served.url).stdout
        assert "Settings refused, the old ones stay" in shown
        assert "models.a.gpus" in shown
        write(tmp_path, f"{good}\nmodels:\n  a:\n    gpus: 1\n")
        served.wait_for_log("settings applied: models.a")
        assert client.get("/admin/status").json()["settings"]["refused"] is None


def test_what_needs_a_restart_is_told(tmp_path: Path) -> None:
    """Once, and in the status; the rest of the same change holds."""
    with running(tmp_path) as served, served.client() as client:
        change(served, tmp_path, max_body_bytes=5, queue={"max_waiting": 7})
        served.wait_for_log("settings: needs a restart: max_body_bytes", level="warning")
        told = client.get("/admin/status").json()
        assert told["settings"]["needs_restart"] == ["max_body_bytes"]
        assert told["limits"]["queue"]["max_waiting"] == 7
        assert "wait for a restart: max_body_bytes" in run("status", "--url", served.url).stdout


def test_an_operator_who_listens_hears_of_it(tmp_path: Path) -> None:
    """/admin/events tells what was applied."""
    with (
        running(tmp_path) as served,
        served.client() as client,
        client.stream("GET", "/admin/events") as events,
    ):
        lines = events.iter_lines()
        change(served, tmp_path, aliases={"x": "nothing"})
        heard = (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
        message = next(each["message"] for each in heard if "settings" in each.get("message", ""))
    assert message == "settings applied: aliases.x"


def test_a_warm_template_is_made_anew(tmp_path: Path) -> None:
    """Of the engine whose environment changed; workers are forked from the new one, with it."""
    write_fake_model(tmp_path / "models", "a")
    with running(tmp_path, warm="on") as served:
        served.wait_for_log("warm template ready")
        ask(served, "a")
        mark = len(served.log)
        engines = yaml.safe_load(file_of(tmp_path).read_text())["engines"]
        engines["vllm"]["env"] = {"MARK": "x"}
        change(served, tmp_path, engines=engines)
        served.wait_for_log("warm template ready", after=mark)
        ask(served, "a")
        assert is_warm(served)
        (template,) = templates(served.process.pid)
        assert template.environ()["MARK"] == "x"
        mark = len(served.log)
        engines["vllm"]["warm"] = "off"
        change(served, tmp_path, engines=engines)
        with served.client() as client:
            until(lambda: client.get("/admin/status").json()["templates"] == [])
        assert not any("made anew" in line["message"] for line in served.log[mark:])


def test_a_model_with_a_python_of_its_own_starts_cold(tmp_path: Path) -> None:
    """The template has the engine's."""
    write_fake_model(tmp_path / "models", "a")
    write_fake_model(tmp_path / "models", "b")
    other = tmp_path / "other-python"
    with running(tmp_path, warm="on", models={"a": {"python": str(other)}}) as served:
        other.write_bytes((tmp_path / "fake-python").read_bytes())
        other.chmod(0o755)
        served.wait_for_log("warm template ready")
        ask(served, "a")
        assert not is_warm(served)
        ask(served, "b")
        assert is_warm(served)


def test_who_waits_for_a_load_gets_the_new_worker(tmp_path: Path) -> None:
    """A load that would take for ever is given up as soon as the settings are mended."""
    write_fake_model(tmp_path / "models", "a")
    hopeless = {"a": {"args": ["--slow-start", 3600]}}
    with running(tmp_path, models=hopeless) as served, ThreadPoolExecutor() as threads:
        asking_a = threads.submit(ask, served, "a")
        served.wait_for_log("worker loading", model="a")
        change(served, tmp_path, models={"a": {"idle_unload_seconds": 0.2}})
        assert int(asking_a.result())
        until(lambda: [line["message"] for line in served.log].count("worker gone") == 2)
