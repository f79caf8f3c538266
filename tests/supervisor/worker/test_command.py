"""Command lines and environments, as tables."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_llm.arguments import is_set
from local_llm.catalog.card import Engine, Family, Kind, ModelCard
from local_llm.gpu import Device
from local_llm.model_gpus import visible_devices
from local_llm.settings import Settings
from local_llm.worker.command import launch
from local_llm.worker.environment import (
    KEY_VARIABLE,
    OWN_VARIABLES,
    inheritable,
    shared_environment,
)
from local_llm.worker.launch import Identity, Launch
from local_llm.worker.vllm_command import gpu_memory_utilization

GIB = 1 << 30
CHAT = ModelCard("org/a", Path("/m/org/a"), Kind.CHAT, Engine.VLLM, (), aliases=("a", "gpt"))
EMBEDDING = ModelCard("e", Path("/m/e"), Kind.EMBEDDING, Engine.TRANSFORMERS, ())
RERANKER = ModelCard("r", Path("/m/r"), Kind.RERANKER, Engine.TRANSFORMERS, ())


def device(index: int = 0, free_gib: float = 20, total_gib: float = 24) -> Device:
    """A GPU."""
    return Device(index, f"GPU-{index}abc", "RTX", int(total_gib * GIB), int(free_gib * GIB))


def planned(
    card: ModelCard, settings: dict[str, Any] | None = None, devices: tuple[Device, ...] = (), **env: str
) -> Launch:
    """A launch of `card` with a known identity."""
    identity = Identity("w1", card, 4711, "secret", Path("/tmp/local-llm-x/w1"))
    return launch(identity, Settings.model_validate(settings or {}), devices=devices, environment=env)


def test_vllm_on_the_cpu() -> None:
    """The whole command line, without a GPU."""
    assert planned(CHAT).argv == (
        sys.executable,
        *("-m", "local_llm_worker.vllm_serve", "/m/org/a"),
        *("--served-model-name", "org/a", "a", "gpt"),
        *("--host", "127.0.0.1", "--port", "4711"),
        *("--middleware", "local_llm_worker.key_guard.KeyGuard"),
        *("--max-model-len", "auto"),
        "--disable-uvicorn-access-log",
        "--enforce-eager",
    )


@pytest.mark.parametrize(
    ("card", "guarded"),
    [
        (replace(CHAT, kind=Kind.TRANSCRIPTION), True),
        (replace(CHAT, architecture="VoxtralForConditionalGeneration"), True),
        (CHAT, False),
    ],
)
def test_who_transcribes_says_when_it_cannot_read_sounds(card: ModelCard, guarded: bool) -> None:
    """vLLM itself would call every file invalid."""
    assert ("local_llm_worker.audio_guard.AudioGuard" in planned(card).argv) is guarded


def test_vllms_limit_of_uploads_is_ours_unless_the_user_has_one() -> None:
    """In MiB, rounded up; what the supervisor's own environment says goes before."""
    name, settings = "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", {"max_upload_bytes": 1_000_000}
    assert planned(CHAT, settings).env[name] == "1"
    assert planned(CHAT, settings, **{name: "7"}).env[name] == "7"


def test_vllm_on_a_gpu() -> None:
    """With a GPU its free memory counts, and compiling is right."""
    argv = planned(CHAT, devices=(device(free_gib=13),)).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.500"
    assert "--enforce-eager" not in argv


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        (EMBEDDING, "embedding"),
        (RERANKER, "reranker"),
        (replace(RERANKER, kind=Kind.CLASSIFIER), "classifier"),
    ],
    ids=["embedding", "reranker", "classifier"],
)
def test_transformers(card: ModelCard, kind: str) -> None:
    """The whole command line of the transformers worker."""
    settings = {"engines": {"transformers": {"python": "/opt/t/bin/python", "token_ids": "model"}}}
    assert planned(card, settings).argv == (
        "/opt/t/bin/python",
        *("-m", "local_llm_worker.pooling", "--model", str(card.path)),
        *("--served-name", card.id),
        *("--port", "4711", "--kind", kind),
        *("--token-ids", "model", "--max-batch-tokens", "16384"),
    )


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["--max-model-len", "4096"], "auto"),
        (["--max_model_len=4096"], "auto"),
        (["--gpu-memory-utilization=0.3"], "0.500"),
        (["--gpu_memory_utilization", "0.3"], "0.500"),
        (["--no-disable-uvicorn-access-log"], "--disable-uvicorn-access-log"),
    ],
)
def test_the_user_is_not_spoken_for(args: list[str], absent: str) -> None:
    """What the user sets, in whatever spelling, we do not; and it comes last."""
    settings = {"models": {"org/*": {"args": args}}}
    argv = planned(CHAT, settings, devices=(device(free_gib=13),)).argv
    assert absent not in argv
    assert list(argv[-len(args) :]) == args


def test_eager_can_be_refused_on_the_cpu() -> None:
    """A later vLLM may compile rightly on the CPU."""
    settings = {"engines": {"vllm": {"args": ["--no-enforce-eager"]}}}
    assert "--enforce-eager" not in planned(CHAT, settings).argv


def test_model_args_follow_engine_args() -> None:
    """The more special wins, since the last one counts."""
    settings = {
        "engines": {"vllm": {"args": ["--seed", "1"]}},
        "models": {"org/a": {"args": ["--seed", "2"]}},
    }
    assert planned(CHAT, settings).argv[-4:] == ("--seed", "1", "--seed", "2")


def test_family_of_a_model() -> None:
    """What is known of it comes before what the user says, and not at all where the user has said it."""
    card = replace(CHAT, family=Family("Foo", "hermes", "qwen3"))
    known = ("--tool-call-parser", "hermes", "--enable-auto-tool-choice", "--reasoning-parser", "qwen3")
    argv = planned(card).argv
    assert argv[argv.index("--tool-call-parser") :][:5] == known
    settings = {"engines": {"vllm": {"args": ["--tool_call_parser=xlam", "--no-enable-auto-tool-choice"]}}}
    argv = planned(card, settings).argv
    assert argv.count("--tool-call-parser") == argv.count("--enable-auto-tool-choice") == 0
    assert "--reasoning-parser" in argv


@pytest.mark.parametrize("card", [CHAT, EMBEDDING], ids=["chat", "embedding"])
def test_remote_code_is_the_users_to_allow(card: ModelCard) -> None:
    """For one model, in its settings; both engines then run it."""
    assert "--trust-remote-code" not in planned(card).argv
    settings = {"models": {card.id: {"trust_remote_code": True}}}
    assert planned(card, settings).argv.count("--trust-remote-code") == 1
    settings = {"models": {card.id: {"trust_remote_code": False}}}
    assert "--trust-remote-code" not in planned(card, settings).argv


def test_environment() -> None:
    """Inherited, quieted, with a place for sockets; the user's wins, the key is always ours."""
    settings = {
        "engines": {"vllm": {"env": {"HF_HUB_OFFLINE": "0", "A": "engine", "LOCAL_LLM_WORKER_KEY": "x"}}},
        "models": {"org/a": {"env": {"A": "model"}}},
    }
    env = planned(CHAT, settings, PATH="/bin", LOCAL_LLM_API_KEYS="k", OPENAI_API_KEY="k").env
    assert env == {
        "PATH": "/bin",
        "A": "model",
        "HF_HUB_OFFLINE": "0",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB": "512",
        "VLLM_RPC_BASE_PATH": "/tmp/local-llm-x/w1",
        "TMPDIR": "/tmp/local-llm-x/w1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "LOCAL_LLM_WORKER_KEY": "secret",
    }


INHERITED = {"PATH": "/bin", "TMPDIR": "/t", KEY_VARIABLE: "k", "OPENAI_API_KEY": "k"}


@pytest.mark.parametrize("devices", [(), (device(),)], ids=["cpu", "gpu"])
@pytest.mark.parametrize("card", [CHAT, EMBEDDING], ids=["vllm", "transformers"])
def test_shared_environment(card: ModelCard, devices: tuple[Device, ...]) -> None:
    """What a template is made with is what its workers would be started with, less what is their own."""
    settings = {
        "engines": {card.engine.value: {"env": {"A": "engine"}}},
        "models": {card.id: {"env": {"B": "model"}}},
    }
    env = dict(planned(card, settings, devices, **INHERITED).env)
    shared = shared_environment(card.engine, Settings.model_validate(settings), devices, INHERITED)
    assert env.pop("B") == "model"
    own = {name: env.pop(name) for name in OWN_VARIABLES}
    assert own == {**dict.fromkeys(OWN_VARIABLES, "/tmp/local-llm-x/w1"), KEY_VARIABLE: "secret"}
    assert shared == env
    assert (shared["PATH"], shared["A"]) == ("/bin", "engine")


def test_own_variables_are_the_users_to_set() -> None:
    """But for the key; of the engine they are shared."""
    settings = {"engines": {"vllm": {"env": dict.fromkeys(OWN_VARIABLES, "/fast")}}}
    env = planned(CHAT, settings).env
    assert [env[name] for name in OWN_VARIABLES] == ["/fast", "/fast", "secret"]
    shared = shared_environment(Engine.VLLM, Settings.model_validate(settings), (), {})
    assert [shared[name] for name in OWN_VARIABLES] == ["/fast", "/fast", "/fast"]


def test_key_is_not_shown() -> None:
    """Neither an identity nor a launch shows its key when it is printed."""
    assert "secret" not in repr(planned(CHAT))


def test_secrets_stay_behind() -> None:
    """Keys of clients and other services are no worker's business; what engines need stays."""
    environment = {
        "LOCAL_LLM_PORT": "1",
        "VLLM_API_KEY": "k",
        "ANTHROPIC_API_KEY": "k",
        "HF_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
        "DB_PASSWORD": "p",
        "HF_HOME": "/h",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert set(inheritable(environment)) == {"HF_HOME", "CUDA_VISIBLE_DEVICES"}


@pytest.mark.parametrize(
    ("free_gib", "total_gib", "share"),
    [
        (24, 24, 0.92),  # vLLM's own default is the most
        (13, 24, 0.5),
        (12.99, 24, 0.499),  # rounded down
        (1.5, 24, 0.05),  # less than the least: vLLM will say what is free
        (0.5, 24, 0.05),
        (139, 140, 0.92),
    ],
)
def test_gpu_memory_utilization(free_gib: float, total_gib: float, share: float) -> None:
    """Free less the reserve of 1 GiB, as a share of all."""
    assert gpu_memory_utilization([device(0, free_gib, total_gib)], GIB) == share


@pytest.mark.parametrize(
    ("args", "variable", "share"),
    [
        ([], None, "0.500"),
        ([], "1", "0.250"),
        (["--tensor-parallel-size", "2"], None, "0.250"),
        (["-tp=2"], None, "0.250"),
        (["-tp", "2"], None, "0.250"),
        (["--pipeline_parallel_size=2"], None, "0.250"),
        (["--tensor-parallel-size", "many"], None, "0.500"),
    ],
)
def test_the_fullest_used_gpu_decides(args: list[str], variable: str | None, share: str) -> None:
    """Of those that the worker will use, in the order CUDA shows them."""
    devices = (device(0, free_gib=13), device(1, free_gib=7))
    env = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    argv = planned(CHAT, {"engines": {"vllm": {"args": args, "env": env}}}, devices).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == share


@pytest.mark.parametrize(
    ("variable", "indices"),
    [
        (None, [0, 1]),
        ("1,0", [1, 0]),
        (" 1 ", [1]),
        ("GPU-1", [1]),
        ("", []),
        ("-1", []),
        ("1,7,0", [1]),
        ("GPU-", []),
    ],
)
def test_visible_devices(variable: str | None, indices: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES as CUDA reads it."""
    assert [each.index for each in visible_devices([device(0), device(1)], variable)] == indices


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--enforce-eager"], True),
        (["--enforce_eager"], True),
        (["--no-enforce-eager"], True),
        (["--enforce-eager=true"], True),
        (["--chat-template", "enforce-eager"], False),
        (["--enforce-eagerly"], False),
        ([], False),
    ],
)
def test_is_set(args: list[str], found: bool) -> None:
    """Every spelling counts, and nothing else."""
    assert is_set(args, "--enforce-eager") is found


CONFIG_FILE = """
max_model_len: 4096
enforce-eager: false
disable-uvicorn-access-log: true
tensor-parallel-size: 2
"""


def test_vllms_own_config_file(tmp_path: Path) -> None:
    """What a file given with --config says is not overruled by ours, though vLLM would let us."""
    config = tmp_path / "vllm.yaml"
    config.write_text(CONFIG_FILE)
    settings = {"engines": {"vllm": {"args": ["--config", str(config)]}}}
    argv = planned(CHAT, settings, devices=(device(free_gib=13), device(1, free_gib=7))).argv
    assert "--max-model-len" not in argv
    assert "--disable-uvicorn-access-log" not in argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.250"
    assert argv[-2:] == ("--config", str(config))
    assert "--enforce-eager" in planned(CHAT, settings).argv


@pytest.mark.parametrize("content", [None, "a: [", "- a", "", "\x00"])
def test_a_config_file_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    """It is vLLM's to complain of."""
    config = tmp_path / "vllm.yaml"
    if content is not None:
        config.write_text(content)
    argv = planned(CHAT, {"engines": {"vllm": {"args": [f"--config={config}"]}}}).argv
    assert argv[argv.index("--max-model-len") + 1] == "auto"
