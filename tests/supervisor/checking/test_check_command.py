"""`local-llm check` and the columns of `local-llm models`, as people and scripts call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_engine import fake_python, write_fake_model
from tests.supervisor.test_cli import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of two engines, and settings that say something of one."""
    models = tmp_path / "models"
    write_fake_model(models, "org/Mini-Chat")
    write_fake_model(models, "embedder", kind="embedding")
    (write_fake_model(models, "unfinished") / "model.safetensors").unlink()
    python = str(fake_python(tmp_path))
    settings: dict[str, Any] = {
        "models_dir": str(models),
        "engines": {name: {"python": python} for name in ("vllm", "transformers")},
        "models": {
            "org/*": {"args": ["--slow-start", "0.1"], "env": {"MY_TOKEN": "hush", "MY_LEVEL": "high"}},
            "org/Mini-Chat": {"aliases": ["mini"]},
        },
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def checked(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what is told of the first model."""
    done = run("check", *arguments, "--json", "--config", str(folder / "settings.yaml"))
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)["models"][0]


def test_everything_is_told(folder: Path) -> None:
    """For programs."""
    status, told = checked(folder, "mini")
    assert (status, told["ok"], told["id"], told["kind"], told["engine"]) == (
        0,
        True,
        "org/Mini-Chat",
        "chat",
        "vllm",
    )
    assert told["evidence"]
    assert "--served-model-name" in told["command"]
    assert told["command"][-2:] == ["--slow-start", "0.1"]
    assert told["environment"]["MY_LEVEL"] == "high"
    assert told["weights"]["file_bytes"] > 0
    assert {each["key"]: each["pattern"] for each in told["settings"]} == {
        "args": "org/*",
        "env": "org/*",
        "aliases": "org/Mini-Chat",
    }


def test_no_secret_is_shown(folder: Path) -> None:
    """Neither a variable that looks like one, nor a key."""
    done = run("check", "mini", "--config", str(folder / "settings.yaml"))
    assert "hush" not in done.stdout
    assert "MY_TOKEN=***" in done.stdout
    assert "LOCAL_LLM_WORKER_KEY" not in done.stdout


def test_for_people(folder: Path) -> None:
    """One line for each thing, and the command in a form that a shell takes."""
    done = run("check", "org/Mini-Chat", "--config", str(folder / "settings.yaml"))
    assert done.returncode == 0, done
    for part in ("org/Mini-Chat", "chat, run by vllm", "why", "weights", "fit", "command", "models: 'org/*'"):
        assert part in done.stdout


def test_what_cannot_be_served_fails_with_its_reason(folder: Path) -> None:
    """Status 1: a script notices."""
    status, told = checked(folder, "unfinished")
    assert (status, told["ok"]) == (1, False)
    assert "weight" in told["reason"]


def test_a_folder_of_models_is_checked_whole(folder: Path) -> None:
    """One that cannot be served makes it fail."""
    done = run("check", str(folder / "models"), "--json", "--config", str(folder / "settings.yaml"))
    assert done.returncode == 1
    told = json.loads(done.stdout)["models"]
    assert [(each["id"], each["ok"]) for each in told] == [
        ("embedder", True),
        ("org/Mini-Chat", True),
        ("unfinished", False),
    ]


def test_no_such_model(folder: Path) -> None:
    """Status 2, with what comes near."""
    done = run("check", "mini-chatt", "--config", str(folder / "settings.yaml"))
    assert done.returncode == 2
    assert "org/Mini-Chat" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("model", ["mini", "embedder"])
def test_a_start_on_trial(folder: Path, model: str) -> None:
    """It is loaded, asked and stopped, and each takes its time."""
    status, told = checked(folder, model, "--run")
    assert status == 0, told
    assert told["trial"]["ok"]
    names = [each["name"] for each in told["trial"]["steps"]]
    assert names[0] == "engine start"
    assert names[-2:] == ["answer", "stop"]
    assert told["trial"]["answer"]


def test_a_trial_that_fails(folder: Path) -> None:
    """Status 1, the worker's own words, nothing left running (a fixture looks)."""
    write_fake_model(folder / "models", "crashes", die_at_start=3)
    done = run("check", "crashes", "--run", "--config", str(folder / "settings.yaml"))
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "Traceback" not in done.stderr


def test_models_shows_what_fits(folder: Path) -> None:
    """Quantization, parsers and fit have columns, and keys in JSON."""
    settings = str(folder / "settings.yaml")
    table = run("models", "--config", settings).stdout
    for column in ("CONTEXT", "QUANTIZED", "PARSERS", "FITS", "WHY"):
        assert column in table
    told = json.loads(run("models", "--json", "--config", settings).stdout)["models"]
    assert all({"quantization", "parsers", "fits", "fitting_context"} <= each.keys() for each in told)
