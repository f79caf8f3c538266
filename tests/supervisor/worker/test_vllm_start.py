"""How vLLM is started on a GPU, as tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.gpu import Device
from local_llm.settings import Settings
from local_llm.worker.command import launch
from local_llm.worker.environment import cache_folder, shared_environment
from local_llm.worker.launch import Identity
from local_llm.worker.vllm_start import (
    StartProfile,
    cache_environment,
    prefetch_args,
    profile_args,
    template_args,
)

GIB = 1 << 30
GPU = Device(0, "GPU-0", "RTX", 24 * GIB, 20 * GIB)


@pytest.mark.parametrize(
    ("profile", "flags"),
    [
        ("balanced", ["--max-cudagraph-capture-size", "64"]),
        ("full", []),
        ("fast", ["--optimization-level", "0"]),
    ],
)
def test_profiles(profile: StartProfile, flags: list[str]) -> None:
    """What each adds."""
    assert profile_args(profile, []) == flags
    assert profile_args(profile, ["--max-num-seqs", "64"]) == flags


@pytest.mark.parametrize(
    "opinion",
    [
        "-O3",
        "-O",
        "--enforce-eager",
        "--optimization_level=1",
        "-cc.mode=3",
        "--cudagraph-capture-sizes",
        "-cc",
    ],
)
def test_the_user_knows_better(opinion: str) -> None:
    """Any flag of the kind, however it is spelled, and none is added."""
    assert profile_args("balanced", [opinion]) == []


def test_prefetch_within_memory() -> None:
    """What is read ahead must stay in memory until it is needed."""
    assert prefetch_args(10 * GIB, 20 * GIB) == ["--safetensors-load-strategy", "prefetch"]
    assert prefetch_args(11 * GIB, 20 * GIB) == []


def planned(devices: tuple[Device, ...], **settings: object) -> tuple[str, ...]:
    card = ModelCard("a", Path("/m/a"), Kind.CHAT, Engine.VLLM, (), size_bytes=1)
    identity = Identity("w1", card, 4711, "secret", Path("/tmp/w1"))
    given = Settings.model_validate({"engines": {"vllm": settings}})
    return launch(identity, given, devices=devices, environment={}).argv


def test_on_a_gpu_only() -> None:
    """The CPU is always eager: compiled, vLLM 0.32 answers wrong text there."""
    on_gpu, on_cpu = planned((GPU,), start="fast"), planned((), start="fast")
    assert on_gpu[on_gpu.index("--optimization-level") + 1] == "0"
    assert "--safetensors-load-strategy" in on_gpu
    assert "--enforce-eager" in on_cpu
    assert not {"--optimization-level", "--safetensors-load-strategy"} & set(on_cpu)
    own = planned((GPU,), args=["--safetensors-load-strategy", "lazy", "-O1"])
    assert own.count("--safetensors-load-strategy") == 1
    assert "--max-cudagraph-capture-size" not in own


def test_caches_under_one_folder() -> None:
    """Unless the environment has a place for one; and vLLM may be told to forget."""
    env = cache_environment(
        Path("/cache"), {"TRITON_CACHE_DIR": "/elsewhere", "VLLM_ENABLE_STARTUP_PLAN": "0"}
    )
    assert env == {
        "VLLM_CACHE_ROOT": "/cache/vllm",
        "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor",
        "FLASHINFER_WORKSPACE_BASE": "/cache/flashinfer",
        "VLLM_ENABLE_STARTUP_PLAN": "0",
    }


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, Path("/x/local-llm")),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, Path("/h/.cache/local-llm")),
        ({}, None),
    ],
)
def test_the_cache_folder(environment: dict[str, str], folder: Path | None) -> None:
    """Where the standard says; nowhere without a home."""
    assert cache_folder(Settings(), environment) == folder
    assert cache_folder(Settings(cache_dir=Path("/c")), environment) == Path("/c")
    env = shared_environment(Engine.VLLM, Settings(), (GPU,), environment)
    assert env.get("VLLM_CACHE_ROOT") == (None if folder is None else str(folder / "vllm"))


@pytest.mark.parametrize(
    ("names", "user_args", "named"),
    [
        ({"config.json", "chat_template.jinja"}, [], True),
        ({"config.json", "tokenizer_config.json"}, [], False),
        ({"chat_template.jinja", "additional_chat_templates"}, [], False),
        ({"chat_template.jinja", "chat_template.json"}, [], False),
        ({"chat_template.jinja", "processor_config.json"}, [], False),
        ({"chat_template.jinja", "tekken.json"}, [], False),
        ({"chat_template.jinja"}, ["--chat_template=/my.jinja"], False),
        ({"chat_template.jinja"}, ["--tokenizer", "/other"], False),
        ({"chat_template.jinja"}, ["--tokenizer-mode", "mistral"], False),
        ({"chat_template.jinja"}, ["--max-num-seqs", "8"], True),
    ],
)
def test_vllm_is_told_the_template_it_would_find(names: set[str], user_args: list[str], named: bool) -> None:
    """Only where there is no other that it would prefer."""
    found = template_args(Path("/m"), names, user_args)
    assert found == (["--chat-template", "/m/chat_template.jinja"] if named else [])
