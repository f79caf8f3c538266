"""From the log of a failed load to an error that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llm.catalog.own_code import own_code
from local_llm.errors import LoadFailed, PortTaken
from local_llm.worker.failures import CAUSES, load_failure, recognised, root_cause
from tests.supervisor.worker.recorded import LOGS, recorded

# Log, what of its first error is told, what is advised.
RECORDED = [
    ("bad-shard", "SafetensorError: Error while deserializing header", "is damaged or incomplete"),
    ("missing-weights", "Cannot find any model weights with", "missing from the model's folder"),
    ("unknown-architecture", "Model architectures ['FooForCausalLM'] are not", "does not know the model's"),
    ("unknown-model-type", "model type `foo`", "does not know the model's"),
    ("remote-code", "contains custom code", "trust_remote_code: true allows it"),
    ("unknown-argument", "", "look at args in the settings (--no-such-thing 3)"),
    ("bad-argument", "", "(--max-num-seqs: invalid int value: 'lots')"),
    ("chat-template", "appears path-like", "no chat template /nowhere/template.jinja"),
    ("missing-package", "No module named 'vllm'", "The package vllm is missing"),
    ("port-taken", "OSError: [Errno 98] Address already in use", "took the worker's port"),
    ("kv-cache", "max seq len (131072), (2.81 GiB KV cache", "set --max-model-len 46464 or less"),
    ("cpu-memory", "Available memory on node 0 (12.82/16.96 GiB)", "cpu_kv_cache_gib"),
    ("gpu-memory-weights", "Tried to allocate 224.00 MiB", "The GPU's memory is full"),
    ("gpu-memory-kv-cache", "No available memory for the cache blocks", "the KV cache does not"),
    ("gpu-memory-context", "(1.19 GiB)", "set --max-model-len 9776 or less"),
    ("gpu-memory-held", "(3.1/23.64 GiB)", "other programs hold it"),
    ("driver-too-old", "found version 12080", "update the driver"),
    ("driver-insufficient", "driver version is insufficient", "update the driver"),
    ("no-gpu", "Failed to infer device type", "containers: --gpus all"),
]


@pytest.mark.parametrize(("log", "told", "advised"), RECORDED)
def test_recorded(log: str, told: str, advised: str) -> None:
    """What real engines wrote before they died."""
    message = load_failure("org/a", "ended with exit code 1", recorded(log)).message
    explanation, _, last_lines = message.partition(" Last lines of its log:\n")
    assert explanation.startswith("The model 'org/a' could not be loaded: its worker ended with exit code 1.")
    assert told in explanation
    assert advised in explanation
    assert last_lines


def test_every_log_is_used() -> None:
    """Those of loads that went well are for the progress."""
    assert {log for log, *_ in RECORDED} | {"loads", "loads-compiled"} == {
        each.stem for each in LOGS.iterdir()
    }


# Those that no log shows, by the line that the engine or its libraries write.
LINES = [
    (
        "AttributeError: '_OpNamespace' '_C' object has no attribute 'init_cpu_memory_env'",
        "apt-get install libnuma1",
    ),
    ("python: No module named local_llm_worker", "Install local-llm-interface"),
    (
        "ImportError: ... requires the following packages that were not found in your environment: einops.",
        "needs the package einops",
    ),
    (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory",
        "host's",
    ),
    (
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set",
        "--chat-templ",
    ),
    ("OSError: [Errno 28] No space left on device", "--shm-size"),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_lines(line: str, expected: str) -> None:
    """The rest of the usual causes."""
    usual = recognised(["something before", line, "something after"])
    assert usual is not None
    assert expected in usual[1]


def test_every_cause_is_tested() -> None:
    """By a log or a line."""
    logs = [recorded(log) for log, *_ in RECORDED] + [[line] for line, _ in LINES]
    assert {usual[0] for lines in logs if (usual := recognised(lines))} == set(CAUSES)


@pytest.mark.parametrize("log", ["loads", "loads-compiled"])
def test_loads_that_go_well_show_no_cause(log: str) -> None:
    """The warnings of a healthy start do not explain a failure that comes later."""
    assert recognised(recorded(log)) is None
    assert root_cause(recorded(log)) is None


def test_unknown_cause() -> None:
    """No advice is better than a wrong one."""
    assert recognised(["KeyError: 'x'"]) is None
    assert (
        recognised(["Failed to import from vllm._C with ModuleNotFoundError(\"No module named 'vllm._C'\")"])
        is None
    )
    assert recognised([]) is None


OWN_CODE = {
    "AutoConfig": "configuration_foo.FooConfig",
    "AutoModelForCausalLM": "modeling_foo.FooForCausalLM",
    "AutoTokenizer": ["tokenization_foo.FooTokenizer", None],
}


@pytest.mark.parametrize("log", ["remote-code", "unknown-architecture", "unknown-model-type"])
def test_code_of_the_models_own(log: str, tmp_path: Path) -> None:
    """The error names the files that want to run, and the line of the settings that lets them."""
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": OWN_CODE}))
    message = load_failure("org/a", "ended", recorded(log), folder=tmp_path).message
    assert "configuration_foo.py, modeling_foo.py, tokenization_foo.py (in config.json)" in message
    assert 'models: {"org/a": {trust_remote_code: true}}' in message


@pytest.mark.parametrize("auto_map", [None, {}, [], {"AutoConfig": 3}, {"AutoConfig": "no-module"}])
def test_without_code_of_its_own(auto_map: object, tmp_path: Path) -> None:
    """Nothing to allow, nothing to advise; whatever the file holds."""
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": auto_map}))
    message = load_failure("org/a", "ended", recorded("unknown-architecture"), folder=tmp_path).message
    assert "a newer one may" in message
    assert "trust_remote_code" not in message


def test_code_in_another_repository(tmp_path: Path) -> None:
    """Its name says where; a damaged file beside it hides nothing."""
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "org/repo--a.b.Foo"}}))
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert own_code(tmp_path) == {"config.json": ("org/repo--a/b.py",)}


def test_port_taken_may_be_tried_again() -> None:
    """It is an error of its own; the others are not."""
    assert type(load_failure("a", "ended", recorded("port-taken"))) is PortTaken
    assert type(load_failure("a", "ended", recorded("bad-shard"))) is LoadFailed


VLLM = "(Worker pid=1) ERROR 11-22 14:00:21 [multiproc_executor.py:953] "


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([f"{VLLM}ValueError: bad", "RuntimeError: failed. See root cause above."], "ValueError: bad"),
        (["a.b.SafetensorError: incomplete", "next line"], "a.b.SafetensorError: incomplete"),
        (["ValidationError: 1 error", "  Value error, odd"], "ValidationError: 1 error: Value error, odd"),
        (["KeyError: 'x'", "OSError: y"], "KeyError: 'x'"),
        (["WARNING this can cause errors like `OSError: [Errno 24]`", "all is well"], None),
        (["Exception: WorkerProc failed. See stack trace for root cause."], None),
        ([f"ValueError: {'x' * 1000}"], f"ValueError: {'x' * 488}"),
        ([], None),
    ],
)
def test_root_cause(lines: list[str], cause: str | None) -> None:
    """The first of the tracebacks tells; vLLM's prefix and its pointers upwards do not."""
    assert root_cause(lines) == cause


def test_noise_at_the_end_is_left_out() -> None:
    """nanobind and multiprocessing complain whenever vLLM ends; that tells nothing."""
    lines = [
        "ValueError: bad",
        "nanobind: leaked 4 instances!",
        ' - leaked type "T"',
        " - ... skipped remainder",
        "See https://nanobind.readthedocs.io/en/latest/refleaks.html",
    ]
    message = load_failure("a", "ended with exit code 1", lines).message
    assert message.endswith("its log:\nValueError: bad")


def test_message() -> None:
    """Model, what happened, what to do, and the last lines, in this order."""
    lines = ["1", "2", "CUDA out of memory"]
    assert load_failure("org/a", "ended with exit code 1", lines, shown=2).message == (
        "The model 'org/a' could not be loaded: its worker ended with exit code 1. The GPU's memory is full: "
        "use a smaller or quantized model, or free GPU memory. Last lines of its log:\n2\nCUDA out of memory"
    )
