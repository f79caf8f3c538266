"""Command lines of adapters' bases, of transformers' own server, and of servers that the settings bring."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from local_llm.catalog.card import Adapter, Engine, Kind, ModelCard
from local_llm.settings import Settings
from local_llm.settings_sources import SettingsError, load_settings
from local_llm.worker.adapter_args import adapter_args
from local_llm.worker.command import launch
from local_llm.worker.launch import Identity, Launch

POET = Adapter(("me/poet", "poet"), Path("/m/me/poet"), 16)
ODD = Adapter(("a=b,c",), Path("/m/a=b,c"), 9)
GGUF = ModelCard("g", Path("/m/g"), Kind.CHAT, Engine.TRANSFORMERS, (), weights=("g-Q8_0.gguf",))
OWN = ModelCard("org/own", Path("/m/org/own"), Kind.CHAT, Engine.COMMAND, ())


def base(*adapters: Adapter) -> ModelCard:
    """Of the adapters."""
    return ModelCard("org/base", Path("/m/base"), Kind.CHAT, Engine.VLLM, (), adapters=adapters)


def planned(card: ModelCard, **settings: Any) -> Launch:
    """A launch with a known identity, on the CPU."""
    identity = Identity("w1", card, 4711, "secret", Path("/tmp/local-llm-x/w1"))
    return launch(identity, Settings.model_validate(settings), devices=(), environment={})


def test_adapters() -> None:
    """Each under all of its names, whatever these hold, and the least rank that vLLM allows."""
    args = adapter_args(base(POET, ODD), [])
    assert args[:2] == ["--enable-lora", "--lora-modules"]
    assert [json.loads(each) for each in args[2:5]] == [
        {"name": "me/poet", "path": "/m/me/poet", "base_model_name": "org/base"},
        {"name": "poet", "path": "/m/me/poet", "base_model_name": "org/base"},
        {"name": "a=b,c", "path": "/m/a=b,c", "base_model_name": "org/base"},
    ]
    assert args[5:] == ["--max-lora-rank", "16", "--max-loras", "2", "--max-cpu-loras", "2"]


@pytest.mark.parametrize(
    ("rank", "flag"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (257, 320), (512, 512)]
)
def test_ranks(rank: int, flag: int) -> None:
    """vLLM takes some only."""
    args = adapter_args(base(Adapter(("a",), Path("/a"), rank)), [])
    assert args[args.index("--max-lora-rank") + 1] == str(flag)


def test_the_user_knows_better() -> None:
    """What the arguments say of LoRA is left as it is; without adapters nothing is said."""
    assert adapter_args(base(), []) == []
    assert adapter_args(base(POET), ["--lora-modules", "x=/x"]) == []
    assert adapter_args(base(POET), ["--no-enable-lora"]) == []
    assert adapter_args(base(POET), ["--enable-lora", "--no_enable_lora"]) == []


@pytest.mark.parametrize("spelled", ["--enable-lora", "--enable_lora"])
def test_the_user_enables_them_too(spelled: str) -> None:
    """It says what we say: they are served all the same."""
    args = adapter_args(base(POET), ["--no-enable-lora", spelled])
    assert args[0] == "--lora-modules"
    assert args[-6:] == ["--max-lora-rank", "16", "--max-loras", "1", "--max-cpu-loras", "1"]


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        (["--max_loras=8"], ["--max-lora-rank", "16", "--max-cpu-loras", "8"]),
        (["--max-cpu-loras", "1"], ["--max-lora-rank", "16", "--max-loras", "1"]),
        (["--max-lora-rank", "64", "--max-loras", "1"], ["--max-cpu-loras", "2"]),
    ],
)
def test_limits_beside_the_users(said: list[str], ours: list[str]) -> None:
    """Only those that are not set, and vLLM wants no fewer in the host's memory than in a batch."""
    args = adapter_args(base(POET, ODD), said)
    assert args[args.index("--lora-modules") + 4 :] == ours


def test_adapters_stand_before_the_users_arguments() -> None:
    """In the whole command line, whose last word of an argument wins."""
    argv = planned(base(POET), models={"org/base": {"args": ["--max-lora-rank", "64"]}}).argv
    assert argv[-2:] == ("--max-lora-rank", "64")
    assert "--enable-lora" in argv
    assert argv.count("--max-lora-rank") == 1


def test_transformers_own_server() -> None:
    """For a folder, and for GGUF in one or lying bare."""
    folder = ModelCard(
        "org/odd", Path("/m/odd"), Kind.CHAT, Engine.TRANSFORMERS, (), weights=("m.safetensors",)
    )
    said = {"dtype": "bfloat16", "trust_remote_code": True, "args": ["--continuous-batching"]}
    assert planned(folder, models={"org/odd": said}).argv == (
        *(sys.executable, "-m", "local_llm_worker.transformers_serve", "--model", "/m/odd"),
        *("--served-name", "org/odd", "odd", "--host", "127.0.0.1", "--port", "4711"),
        *("--dtype", "bfloat16", "--trust-remote-code", "--continuous-batching"),
    )
    assert planned(GGUF).argv[3:7] == ("--model", "/m/g", "--gguf-file", "g-Q8_0.gguf")
    bare = ModelCard("b", Path("/m/b.gguf"), Kind.CHAT, Engine.TRANSFORMERS, (), weights=("b.gguf",))
    assert planned(bare).argv[3:7] == ("--model", "/m", "--gguf-file", "b.gguf")


def test_an_own_server() -> None:
    """Every placeholder, also within a word and in further arguments; other braces are left alone."""
    command = ["srv", "-m", "{path}", "--listen={host}:{port}", "--alias", "{id}", "--api-key", "{key}"]
    made = planned(
        OWN,
        engines={"command": {"args": ["--verbose"], "env": {"A": "1"}}},
        models={
            "org/own": {
                "engine": "command",
                "command": command,
                "stop_signal": "SIGINT",
                "args": ['{"port": {port}}', "{}"],
                "env": {"B": "2"},
            }
        },
    )
    assert made.argv == (
        *("srv", "-m", "/m/org/own", "--listen=127.0.0.1:4711", "--alias", "org/own", "--api-key", "secret"),
        *("--verbose", '{"port": 4711}', "{}"),
    )
    assert made.stop_signal is Signals.SIGINT
    assert (made.env["A"], made.env["B"], made.env["LOCAL_LLM_WORKER_KEY"]) == ("1", "2", "secret")
    assert "PYTHONSAFEPATH" not in made.env


@pytest.mark.parametrize(
    ("card", "said", "path"),
    [
        (ModelCard("g", Path("/m/g"), Kind.CHAT, Engine.COMMAND, (), weights=("g.gguf",)), {}, "/m/g/g.gguf"),
        (
            ModelCard("g", Path("/m/g.gguf"), Kind.CHAT, Engine.COMMAND, (), weights=("g.gguf",)),
            {},
            "/m/g.gguf",
        ),
        (ModelCard("g", Path("/m/g"), Kind.CHAT, Engine.COMMAND, ()), {"path": "/else/where"}, "/else/where"),
    ],
)
def test_what_path_means(card: ModelCard, said: dict[str, Any], path: str) -> None:
    """The GGUF file where there is one, since servers of GGUF want it; what the settings say wins."""
    model = {"engine": "command", "command": ["srv", "{path}", "{port}"], **said}
    assert planned(card, models={"g": model}).argv == ("srv", path, "4711")


@pytest.mark.parametrize(
    ("models", "where", "what"),
    [
        ({"a": {"engine": "command"}}, "models.a.engine", "there is no command"),
        ({"a": {"command": ["x", "{port}"]}}, "models.a.command", "of no effect without engine: command"),
        (
            {"a": {"engine": "command", "command": ["x", "{prot}"]}},
            "models.a.command",
            "nothing is known to put in place of {prot}: there are {path}, {port}",
        ),
        ({"a": {"engine": "command", "command": ["x"]}}, "models.a.command", "must name {port}"),
        ({"a": {"engine": "command", "command": ["", "{port}"]}}, "models.a.command", "its first word"),
        ({"a": {"engine": "vllm", "command": ["x"]}}, "models.a", "command is for engine: command"),
    ],
)
def test_commands_that_cannot_be(tmp_path: Path, models: dict[str, Any], where: str, what: str) -> None:
    """Refused when the settings are read, with the key."""
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"models": models}))
    with pytest.raises(SettingsError) as refused:
        load_settings(file, environment={}, flags={})
    assert where in str(refused.value)
    assert what in str(refused.value)


def test_a_command_in_two_entries() -> None:
    """A glob may say what its ids complete."""
    models = {"*": {"engine": "command", "args": ["--port", "{port}"]}, "org/own": {"command": ["srv"]}}
    with pytest.raises(ValueError, match="there is no command"):
        Settings.model_validate({"models": models})
    models = {"own-*": {"command": ["srv", "{port}"], "engine": "command"}, "own-1": {"args": ["-v"]}}
    assert Settings.model_validate({"models": models}).model_settings("own-1").command == ("srv", "{port}")
