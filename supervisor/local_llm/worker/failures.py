"""What a dead worker's last lines mean, for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from local_llm.catalog.own_code import how_to_allow, own_code
from local_llm.errors import LoadFailed, PortTaken


class Cause(NamedTuple):
    """A usual cause of a failed load.

    Attributes:
        pattern: searched for in the last lines.
        advice: a sentence, or two; may refer to the pattern's groups.
        error: what the failure becomes.
        own_code: it is that the model's own code was not run, or may be.
    """

    pattern: str
    advice: str
    error: type[LoadFailed] = LoadFailed
    own_code: bool = False


# The more telling first: an out-of-memory is often followed by lines about its consequences.
CAUSES: tuple[Cause, ...] = (
    Cause(
        r"No module named '?local_llm_worker",
        "Install local-llm-interface into that Python too (without its dependencies is enough for vLLM).",
    ),
    Cause(
        r"(?:Error|python\S*): No module named '?"
        r"(?P<package>vllm|torch|transformers|sentence_transformers)\b",
        "The package {package} is missing: install the engine's extra, or point engines.*.python at a "
        "Python that has it.",
    ),
    Cause(
        r"(?:not found in your environment: |ModuleNotFoundError: No module named ')(?P<package>[\w.-]+)",
        "The model's own code needs the package {package}: install it into the engine's Python.",
    ),
    Cause(
        r"estimated maximum model length is (?P<length>\d+)",
        "The context does not fit: set --max-model-len {length} or less for this model, or leave it out.",
    ),
    Cause(
        r"No available memory for the cache blocks|larger than the available KV cache memory",
        "The weights fit and the KV cache does not: free GPU memory, raise --gpu-memory-utilization, or "
        "set a smaller --max-model-len.",
    ),
    Cause(
        r"is less than (?:desired GPU memory utilization|the engine's budget)|Available memory on node",
        "Too little memory is free: other programs hold it. Free some, or lower --gpu-memory-utilization "
        "(on the CPU: engines.vllm.cpu_kv_cache_gib).",
    ),
    Cause(
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "The GPU's memory is full: use a smaller or quantized model, or free GPU memory.",
    ),
    Cause(
        r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|^MemoryError",
        "The host's memory is full: use a smaller model, or free some.",
    ),
    Cause(
        r"trust_remote_code=True`",  # with the backtick: vLLM logs all its settings, this one too
        "The model brings code of its own, which was not run: trust_remote_code: true allows it.",
        own_code=True,
    ),
    Cause(
        r"Model architectures? \[?[^\]]*\]? (?:are|is) not supported|does not recognize this arch",
        "This version of the engine does not know the model's architecture: a newer one may.",
        own_code=True,
    ),
    Cause(
        r"chat template string \((?P<path>[^)]*)\) appears path-like",
        "There is no chat template {path}: correct --chat-template in the settings.",
    ),
    Cause(
        r"tokenizer\.chat_template is not set",
        "The model has no chat template: give one with --chat-template, or ask /v1/completions instead.",
    ),
    Cause(
        r"Address already in use|address already in use|EADDRINUSE",
        "Another program took the worker's port first: try again.",
        PortTaken,
    ),
    Cause(
        r"HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|SafetensorError|"
        r"PytorchStreamReader failed|UnpicklingError",
        "A weight file is damaged or incomplete: download it again.",
    ),
    Cause(
        r"Cannot find any model weights|no file named .*(?:safetensors|\.bin)|No such file .*\.safetensors",
        "Weight files are missing from the model's folder: download it again.",
    ),
    Cause(
        r"Failed to infer device type|Found no NVIDIA driver",
        "The engine is built for a GPU and sees none: is the NVIDIA driver loaded (containers: --gpus all)?",
    ),
    Cause(
        r"libnuma\S*: cannot open|'_C' object has no attribute 'init_cpu_memory_env'",
        "vLLM for the CPU needs libnuma: install it (Debian and Ubuntu: apt-get install libnuma1).",
    ),
    Cause(
        r"[Dd]river .*(?:is insufficient|is too old)|no kernel image is available|libcuda\S*: cannot open",
        "The NVIDIA driver or GPU does not fit the installed CUDA build: update the driver, or install "
        "another build of torch and vLLM.",
    ),
    Cause(
        r"error: (?:unrecognized arguments:|argument) ?(?P<what>.*)",
        "The engine does not accept an argument: look at args in the settings ({what}).",
    ),
    Cause(
        r"No space left on device",
        "A disk or /dev/shm is full: free some space (containers: raise --shm-size).",
    ),
)


def recognised(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The usual cause that the last lines show, and what to do about it; None if they show none."""
    text = "\n".join(lines)
    for cause in CAUSES:
        found = re.search(cause.pattern, text, re.MULTILINE)
        if found:
            return cause, cause.advice.format(**found.groupdict())
    return None


# What Python and nanobind print when vLLM ends, forty lines of it, whatever the cause.
_NOISE = re.compile(
    r"^nanobind: | - leaked (instance|type|function) | - \.\.\. skipped|resource_tracker|^See https://nanobind"
)


def telling(lines: Sequence[str]) -> list[str]:
    """Without those lines that come whatever the cause."""
    return [line for line in lines if not _NOISE.search(line)]


# The end of a traceback, with or without vLLM's prefix of process and time before it.
_RAISED = re.compile(r"^(\(.*?\) ERROR \S+ \S+ \[\S+\] )?(?P<error>[\w.]*(Error|Exception): \S.*)$")


def root_cause(lines: Sequence[str]) -> str | None:
    """The first exception that the log shows, cut to a printable length.

    vLLM's processes fail one after the other, each with a traceback of its own; the last one says no
    more than "See root cause above".
    """
    for position, line in enumerate(lines):
        found = _RAISED.match(line)
        if found and "root cause" not in line:
            error = found["error"]
            following = lines[position + 1] if position + 1 < len(lines) else ""
            # pydantic gives the reason on the next line, indented.
            return (f"{error}: {following.strip()}" if following.startswith("  ") else error)[:500]
    return None


def load_failure(
    model_id: str, what_happened: str, lines: Sequence[str], *, folder: Path | None = None, shown: int = 10
) -> LoadFailed:
    """The error of a failed load.

    Args:
        model_id: the model.
        what_happened: the rest of a sentence that begins with "its worker".
        lines: the last ones of its log, all that are kept.
        folder: the model's; looked into where the cause may be that its own code was not run.
        shown: how many of them to show.
    """
    lines = telling(lines)
    first_error, usual = root_cause(lines), recognised(lines)
    message = f"The model {model_id!r} could not be loaded: its worker {what_happened}."
    message += f" {first_error.removesuffix('.')}." if first_error else ""
    message += f" {usual[1]}" if usual else ""
    if usual and usual[0].own_code and folder is not None and own_code(folder):
        message += f" {how_to_allow(model_id, folder)}"
    message += " Last lines of its log:\n" + "\n".join(lines[-shown:]) if lines else ""
    return (usual[0].error if usual else LoadFailed)(message)
