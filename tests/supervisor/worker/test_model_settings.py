"""The effect of each setting of a model on its worker's command line and environment, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed
from local_llm.gpu import Device
from local_llm.model_gpus import visible_to
from local_llm.settings import Settings
from local_llm.worker.command import launch
from local_llm.worker.launch import Identity, Launch

GIB = 1 << 30
CHAT = ModelCard("org/a", Path("/m/org/a"), Kind.CHAT, Engine.VLLM, ())
EMBEDDING = ModelCard("e", Path("/m/e"), Kind.EMBEDDING, Engine.TRANSFORMERS, ())
RERANKER = ModelCard("r", Path("/m/r"), Kind.RERANKER, Engine.TRANSFORMERS, ())


def gpus(count: int) -> tuple[Device, ...]:
    """Of 24 GiB; of the first 13 are free, of the next 7, and then 19."""
    free = (13, 7, 19)
    return tuple(Device(each, f"GPU-{each}abc", "RTX", 24 * GIB, free[each] * GIB) for each in range(count))


def planned(
    card: ModelCard, said: dict[str, Any], devices: tuple[Device, ...] = (), **engines: Any
) -> Launch:
    """A launch of `card`, of which the settings say this."""
    identity = Identity("w1", card, 4711, "secret", Path("/tmp/local-llm-x/w1"))
    settings = Settings.model_validate({"models": {card.id: said}, "engines": engines})
    return launch(identity, settings, devices=devices, environment={"PATH": "/bin"})


def after(argv: tuple[str, ...], flag: str) -> str | None:
    """The value of a flag; None if it is not there."""
    return argv[argv.index(flag) + 1] if flag in argv else None


@pytest.mark.parametrize(
    ("card", "said", "flag", "value"),
    [
        (CHAT, {}, "--max-model-len", "auto"),
        (CHAT, {"context": 4096}, "--max-model-len", "4096"),
        (EMBEDDING, {}, "--max-length", None),
        (EMBEDDING, {"context": 128}, "--max-length", "128"),
        (RERANKER, {"context": 128}, "--max-length", "128"),
        (CHAT, {}, "--dtype", None),
        (CHAT, {"dtype": "bfloat16"}, "--dtype", "bfloat16"),
        (EMBEDDING, {"dtype": "float32"}, "--dtype", "float32"),
        (CHAT, {"gpus": 2}, "--tensor-parallel-size", "2"),
        (CHAT, {"gpus": [2, 0]}, "--tensor-parallel-size", "2"),
        (CHAT, {"gpus": 1}, "--tensor-parallel-size", "1"),
        (CHAT, {}, "--tensor-parallel-size", None),
        (EMBEDDING, {"gpus": [2]}, "--tensor-parallel-size", None),
        (CHAT, {}, "--max-cudagraph-capture-size", "64"),
        (CHAT, {"start": "full"}, "--max-cudagraph-capture-size", None),
        (CHAT, {"start": "fast"}, "--optimization-level", "0"),
        (CHAT, {"args": ["--seed", 3]}, "--seed", "3"),
        (CHAT, {"prompt": "query"}, "--prompt=query", None),
    ],
)
def test_arguments(card: ModelCard, said: dict[str, Any], flag: str, value: str | None) -> None:
    """Each key, on a machine with three GPUs."""
    assert after(planned(card, said, gpus(3)).argv, flag) == value


@pytest.mark.parametrize("prompt", ["query", "Instruct: find\nQuery: ", "-", ""])
def test_prompt(prompt: str) -> None:
    """For embedding models, as one word, since it may begin with a dash."""
    assert f"--prompt={prompt}" in planned(EMBEDDING, {"prompt": prompt}).argv
    assert not any("--prompt" in each for each in planned(RERANKER, {"prompt": prompt}).argv)


@pytest.mark.parametrize(
    ("said", "args", "flag"),
    [
        ({"context": 4096}, ["--max-model-len", "1k"], "--max-model-len"),
        ({"context": 4096}, ["--max_model_len=1k"], "--max-model-len"),
        ({"dtype": "float16"}, ["--dtype", "half"], "--dtype"),
        ({"gpus": 2}, ["-tp", "4"], "--tensor-parallel-size"),
        ({"start": "fast"}, ["-O1"], "--optimization-level"),
    ],
)
def test_arguments_win_over_keys(said: dict[str, Any], args: list[str], flag: str) -> None:
    """Both are the user's, and the arguments are the engine's own words."""
    argv = planned(CHAT, {**said, "args": args}, gpus(3)).argv
    ours = argv[: -len(args)]
    assert flag not in ours
    assert list(argv[-len(args) :]) == args


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ({}, "0.500"),
        ({"gpus": 1}, "0.500"),
        ({"gpus": 2}, "0.250"),
        ({"gpus": [2]}, "0.750"),
        ({"gpus": [2, 0]}, "0.500"),
        ({"gpus": [2, 0], "args": ["-tp", "1"]}, "0.750"),
    ],
)
def test_only_the_gpus_that_are_used_count(said: dict[str, Any], share: str) -> None:
    """For the share of memory: the fullest of them decides."""
    assert after(planned(CHAT, said, gpus(3)).argv, "--gpu-memory-utilization") == share


@pytest.mark.parametrize(
    ("said", "engine_env", "expected"),
    [
        ({}, {}, (None, None)),
        ({"gpus": 2}, {}, (None, None)),
        ({"gpus": [2, 0]}, {}, ("2,0", "PCI_BUS_ID")),
        ({"gpus": [2]}, {"CUDA_VISIBLE_DEVICES": "0,1"}, ("2", "PCI_BUS_ID")),
        ({"env": {"CUDA_VISIBLE_DEVICES": "1"}}, {"CUDA_VISIBLE_DEVICES": "0"}, ("1", None)),
    ],
)
@pytest.mark.parametrize("card", [CHAT, EMBEDDING], ids=["vllm", "transformers"])
def test_which_gpus(
    card: ModelCard, said: dict[str, Any], engine_env: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    """A list is what CUDA shows the worker, in the order of nvidia-smi."""
    env = planned(card, said, gpus(3), **{card.engine.value: {"env": engine_env}}).env
    assert (env.get("CUDA_VISIBLE_DEVICES"), env.get("CUDA_DEVICE_ORDER")) == expected


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"gpus": 4}, "want gpus: 4 for the model 'org/a'. There are 0 (RTX), 1 (RTX), 2 (RTX)"),
        ({"gpus": [0, 3]}, "want gpus: [0, 3] for the model 'org/a'"),
        ({"gpus": 2, "env": {"CUDA_VISIBLE_DEVICES": "1"}}, "its worker would see 1."),
    ],
)
def test_gpus_that_are_not_there(said: dict[str, Any], words: str) -> None:
    """Told with what is there, before anything is started; on the CPU it is the engine's to say."""
    with pytest.raises(LoadFailed) as caught:
        planned(CHAT, said, gpus(3))
    assert words in caught.value.message
    assert planned(CHAT, said).argv


@pytest.mark.parametrize("card", [CHAT, EMBEDDING], ids=["vllm", "transformers"])
def test_python(card: ModelCard) -> None:
    """The model's own, else the engine's."""
    engines = {card.engine.value: {"python": "/engine/python"}}
    assert planned(card, {}, **engines).argv[0] == "/engine/python"
    assert planned(card, {"python": "/own/python"}, **engines).argv[0] == "/own/python"


def test_the_devices_of_one_model_are_those_it_can_fit() -> None:
    """Though the others see the first GPU only."""
    settings = Settings.model_validate({"models": {CHAT.id: {"gpus": [2]}}})
    for card, index in ((CHAT, 2), (EMBEDDING, 0)):
        (found,) = visible_to(card, gpus(3), settings, {"CUDA_VISIBLE_DEVICES": "0"})
        assert found.index == index
