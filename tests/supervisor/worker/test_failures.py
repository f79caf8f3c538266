"""From the last lines of a log to advice."""

from __future__ import annotations

import pytest

from local_llm.worker.failures import CAUSES, Ended, advice, load_failure, root_cause

LINES = [
    ("python: No module named local_llm_worker", "Install local-llm-interface"),
    ("ModuleNotFoundError: No module named 'vllm'", "The package vllm is missing"),
    (
        (
            "ValueError: ... (4.00 GiB KV cache needed, larger than the available KV cache memory "
            "(1.2 GiB)). Based on the available memory, the estimated maximum model length is 9776."
        ),
        "set --max-model-len 9776 or less",
    ),
    ("ValueError: No available memory for the cache blocks.", "The weights fit and the KV cache does not"),
    (
        "ValueError: Free memory on device cuda:0 (3.1/23.6 GiB) is less than desired GPU memory utilization",
        "Too little memory is free",
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.",
        "The GPU's memory is full",
    ),
    (
        "ValueError: Please pass the argument `trust_remote_code=True` to allow custom code",
        "--trust-remote-code",
    ),
    ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", "does not know"),
    ("OSError: [Errno 98] Address already in use", "took the worker's port"),
    ("safetensors_rust.SafetensorError: Error while deserializing header", "damaged or incomplete"),
    ("RuntimeError: The NVIDIA driver on your system is too old", "NVIDIA driver"),
    ("vllm: error: unrecognized arguments: --foo {x}", "look at args in the settings (--foo {x})"),
    ("OSError: [Errno 28] No space left on device", "--shm-size"),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_causes(line: str, expected: str) -> None:
    """Each of the usual causes is recognised by the line that its engine writes."""
    assert expected in (advice(["something before", line, "something after"]) or "")


def test_every_cause_is_tested() -> None:
    """One line of a log for each cause in the table, at least."""
    assert len(LINES) == len(CAUSES)


def test_unknown_cause() -> None:
    """No advice is better than a wrong one."""
    assert advice(["Initializing an engine with config: trust_remote_code=True, dtype=auto"]) is None
    assert advice(["KeyError: 'x'"]) is None
    assert advice([]) is None


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(3, None, (), asked=False), "ended with exit code 3"),
        (Ended(0, None, (), asked=True), "ended with exit code 0"),
        (Ended(None, 11, (), asked=False), "was killed by SIGSEGV"),
        (Ended(None, 9, (), asked=False), "was killed by SIGKILL, perhaps out of host memory"),
        (Ended(None, 9, (), asked=True), "was killed by SIGKILL"),
        (Ended(None, 63, (), asked=False), "was killed by signal 63"),
        (
            Ended(None, None, (), asked=False, not_started="no such file"),
            "could not be started (no such file)",
        ),
    ],
)
def test_ends_in_words(ended: Ended, words: str) -> None:
    """How it ended, for people."""
    assert ended.in_words() == words


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
    ]
    assert load_failure("a", "ended with exit code 1", lines).endswith("its log:\nValueError: bad")


def test_message() -> None:
    """Model, what happened, what to do, and the last lines, in this order."""
    message = load_failure("org/a", "ended with exit code 1", ["1", "2", "CUDA out of memory"], shown=2)
    assert message == (
        "The model 'org/a' could not be loaded: its worker ended with exit code 1. The GPU's memory is full: "
        "use a smaller or quantized model, or free GPU memory. Last lines of its log:\n2\nCUDA out of memory"
    )
