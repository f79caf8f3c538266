"""The program as people call it: what it prints, where settings come from, how it fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import serving

USUAL_SECONDS = 60.0


def run(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, seconds: float = USUAL_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Runs `local-llm` to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCAL_LLM_")}
    return subprocess.run(
        [sys.executable, "-m", "local_llm", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**clean, "COLUMNS": "200", "NO_COLOR": "1", **(environment or {})},
        check=False,
    )


def fails(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs it into a mistake of its user: exit code 2, nothing on stdout, no traceback; returns the words."""
    done = run(*arguments, environment=environment)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    write_fake_model(folder, "org/Mini-Chat")
    write_fake_model(folder, "embedder", kind="embedding")
    (write_fake_model(folder, "unfinished") / "model.safetensors").unlink()
    return folder


def test_version() -> None:
    """Of the installed distribution."""
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("local-llm-interface"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["serve", "models", "--version"]),
        (["serve", "--help"], ["--models", "--host", "--port", "--config", "--log-format", "Ctrl-C", "8000"]),
        (["models", "-h"], ["--models", "--json", "--config"]),
    ],
)
def test_help_reads_well(arguments: list[str], words: list[str]) -> None:
    """Every flag is there, within 100 columns; asked for nothing, it helps, too."""
    done = run(*arguments, environment={"COLUMNS": "100"})
    assert done.returncode == 0
    for word in words:
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "serve" in run().stdout


def test_the_table_of_models(models: Path) -> None:
    """A line each, with why; below it what cannot be served, with the reason."""
    done = run("models", "--models", models)
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["org/Mini-Chat"].split()[1:3] == ["chat", "vllm"]
    assert lines["embedder"].split()[1:3] == ["embedding", "transformers"]
    assert "modules.json" in lines["embedder"]
    (broken,) = [line for line in done.stdout.splitlines() if "unfinished" in line]
    assert broken.startswith("cannot be served:")


def test_the_models_for_programs(models: Path) -> None:
    """One JSON object on stdout and nothing else there; the broken ones beside the others."""
    done = run("models", "--models", models, "--json")
    told = json.loads(done.stdout)
    assert [each["id"] for each in told["models"]] == ["embedder", "org/Mini-Chat"]
    embedder, chat = told["models"]
    assert (embedder["kind"], embedder["engine"]) == ("embedding", "transformers")
    assert embedder["evidence"]
    assert chat["aliases"] == ["Mini-Chat"]
    assert chat["context_length"] == 2048
    assert Path(chat["path"]) == models / "org" / "Mini-Chat"
    assert [(each["id"], bool(each["reason"])) for each in told["broken"]] == [("unfinished", True)]


def test_an_empty_folder(tmp_path: Path) -> None:
    """Is said to be one, with what a model looks like."""
    done = run("models", "--models", tmp_path)
    assert done.returncode == 0
    assert "No models in" in done.stdout
    assert json.loads(run("models", "--models", tmp_path, "--json").stdout) == {"models": [], "broken": []}


@pytest.mark.parametrize("command", ["serve", "models"])
def test_a_models_folder_that_is_none(tmp_path: Path, command: str) -> None:
    """Missing, or a file: one line with its path."""
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        (line,) = fails(command, "--models", tmp_path / name).splitlines()
        assert line.startswith("local-llm: ")
        assert str(tmp_path / name) in line


def test_a_taken_port(tmp_path: Path) -> None:
    """One line with the address, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (line,) = fails("serve", "--models", tmp_path, "--port", str(port)).splitlines()
    assert line == f"local-llm: 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize("host", ["256.0.0.1", "no.such.host.invalid", "a..b", "192.0.2.1"])
def test_a_host_that_is_none_of_ours(tmp_path: Path, host: str) -> None:
    """One line with the address, too."""
    (line,) = fails("serve", "--models", tmp_path, "--host", host, "--port", "0").splitlines()
    assert line.startswith(f"local-llm: {host}:0: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("queue:\n  patienc: 1\n", ["line 2", "queue.patienc", "Did you mean 'patience'?"]),
        ("port: many\n", ["line 1", "port", "integer"]),
        ("port: 70000\n", ["line 1", "port", "65535"]),
        ("a: [\n", ["is no YAML"]),
        ("- a\n", ["must be a mapping"]),
        ("port: 0\napi_keys_file: /nowhere/keys\n", ["api_keys_file /nowhere/keys"]),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, words: list[str]) -> None:
    """They name the file, the line, the key and what is allowed."""
    config = tmp_path / "settings.yaml"
    config.write_text(text)
    said = fails("serve", "--models", tmp_path, "--config", config)
    for word in [*words, *([str(config)] if "nowhere" not in text else [])]:
        assert word in said


def test_mistakes_elsewhere(tmp_path: Path) -> None:
    """In the environment and on the command line, and a file that is not there."""
    said = fails("serve", "--models", tmp_path, environment={"LOCAL_LLM_QUEUE__MAX_WAITING": "0"})
    assert "LOCAL_LLM_QUEUE__MAX_WAITING" in said
    said = fails("serve", "--models", tmp_path, environment={"LOCAL_LLM_NOTHING": "1"})
    assert "LOCAL_LLM_NOTHING" in said
    assert "--log-level" in fails("serve", "--models", tmp_path, "--log-level", "loud")
    assert "--port" in fails("serve", "--models", tmp_path, "--port", "many")
    assert "--nothing" in fails("serve", "--nothing")
    missing = tmp_path / "missing.yaml"
    assert str(missing) in fails("serve", "--models", tmp_path, "--config", missing)
    said = fails("serve", "--models", tmp_path, environment={"LOCAL_LLM_CONFIG": str(missing)})
    assert str(missing) in said


def test_a_secret_is_in_no_error(tmp_path: Path) -> None:
    """Even where the mistake is beside it."""
    config = tmp_path / "settings.yaml"
    config.write_text("api_keys: {marker-of-a-key: 1}\n")
    said = fails("serve", "--models", tmp_path, "--config", config)
    assert "api_keys" in said
    assert "marker-of-a-key: 1" not in said
    assert "marker" not in said.replace(str(tmp_path), "")


def test_flags_over_environment_over_file(tmp_path: Path) -> None:
    """Key by key, through the real program; a variable may be one key of a nested section."""
    for name in ("of_file", "of_environment", "of_flag"):
        write_fake_model(tmp_path / name, name)
    config = tmp_path / "settings.yaml"
    config.write_text(f"models_dir: {tmp_path / 'of_file'}\naliases: {{short: of_file}}\n")
    variable = {"LOCAL_LLM_MODELS_DIR": str(tmp_path / "of_environment")}

    def ids(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> list[str]:
        done = run("models", "--json", *arguments, environment=environment)
        return [each["id"] for each in json.loads(done.stdout)["models"]]

    assert ids("--config", config) == ["of_file"]
    assert ids(environment={"LOCAL_LLM_CONFIG": str(config)}) == ["of_file"]
    assert ids("--config", config, environment=variable) == ["of_environment"]
    assert ids("--config", config, "--models", tmp_path / "of_flag", environment=variable) == ["of_flag"]
    done = run("models", "--json", "--config", config, environment={"LOCAL_LLM_ALIASES": "{brief: of_file}"})
    assert json.loads(done.stdout)["models"][0]["aliases"] == ["brief", "short"]


def test_the_server_takes_settings_from_all_three(tmp_path: Path) -> None:
    """The file's alias, the environment's key, the flags' folder and log format."""
    write_fake_model(tmp_path / "models", "a")
    settings = {"aliases": {"b": "a"}, "api_keys": ["of-the-file"]}
    environment = {"LOCAL_LLM_API_KEYS": "of-the-environment", "LOCAL_LLM_LOG_FORMAT": "human"}
    with serving(tmp_path / "models", tmp_path, settings, environment) as served:
        url = f"{served.url}/v1/models/b"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"x-api-key": "of-the-file"}).status_code == 401
        answer = httpx.get(url, headers={"x-api-key": "of-the-environment"})
    assert answer.json()["id"] == "a"
    assert not [line for line in served.log if line["level"] == "unparsed"]


def test_what_a_person_sees_first(tmp_path: Path) -> None:
    """The URL, the models, a line to try; each line of the log human."""
    write_fake_model(tmp_path / "models", "org/Mini-Chat")
    command = [sys.executable, "-m", "local_llm", "serve", "--models", str(tmp_path / "models")]
    with subprocess.Popen(
        [*command, "--port", "0", "--log-format", "human"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "info    serving host=127.0.0.1 port=" in line
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    port = line.split("port=")[1].split()[0]
    assert f"http://127.0.0.1:{port}/v1" in said
    assert "org/Mini-Chat" in said
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in said
