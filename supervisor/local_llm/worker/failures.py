"""What a dead worker's last lines mean, for people."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker's main process ended.

    Attributes:
        exit_code: what it left with; None if a signal killed it or it never ran.
        signal: the number of the signal that killed it; None if it left by itself or never ran.
        last_lines: of its log, oldest first.
        asked: whether it had been asked to stop.
        not_started: why its program never ran; None if it did.
    """

    exit_code: int | None
    signal: int | None
    last_lines: tuple[str, ...]
    asked: bool
    not_started: str | None = None

    def in_words(self) -> str:
        """The rest of a sentence that begins with "its worker"."""
        if self.not_started is not None:
            return f"could not be started ({self.not_started})"
        if self.signal is not None:
            return f"was killed by {_signal_name(self.signal)}{self._suspicion()}"
        return f"ended with exit code {self.exit_code}"

    def _suspicion(self) -> str:
        # Nobody else sends it as a rule (gunicorn says the same in its log).
        return ", perhaps out of host memory" if self.signal == signal.SIGKILL and not self.asked else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Cause(NamedTuple):
    """A usual cause of a failed load.

    Attributes:
        pattern: searched for in the last lines, case ignored.
        advice: a sentence, or two; may refer to the pattern's groups.
    """

    pattern: str
    advice: str


# The more telling first: an out-of-memory is often followed by lines about its consequences.
CAUSES: tuple[Cause, ...] = (
    Cause(
        r"No module named '?local_llm_worker",
        "Install local-llm-interface into that Python too (without its dependencies is enough for vLLM).",
    ),
    Cause(
        r"No module named '?(?P<package>vllm|torch|transformers|sentence_transformers)\b",
        "The package {package} is missing: install the engine's extra, or point engines.*.python at a "
        "Python that has it.",
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
        r"(less than desired GPU memory utilization)|(Available memory on node)",
        "Too little memory is free: other programs hold it. Free some, or lower --gpu-memory-utilization.",
    ),
    Cause(
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory",
        "The GPU's memory is full: use a smaller or quantized model, or free GPU memory.",
    ),
    Cause(
        r"trust_remote_code=True`",  # with the backtick: vLLM logs all its settings, this one too
        "The model brings code of its own: if you trust it, add --trust-remote-code to its args.",
    ),
    Cause(
        r"Model architectures? \[?(?P<name>[^\]]*)\]? (are|is) not supported|does not recognize this arch",
        "This version of the engine does not know the model's architecture: a newer one may.",
    ),
    Cause(
        r"Address already in use|address already in use",
        "Another program took the worker's port first: try again.",
    ),
    Cause(
        r"HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer|SafetensorError",
        "A weight file is damaged or incomplete: download it again.",
    ),
    Cause(
        r"driver .*is (insufficient|too old)|no kernel image is available",
        "The NVIDIA driver or GPU does not fit the installed CUDA build: update the driver, or install "
        "another build of torch and vLLM.",
    ),
    Cause(
        r"error: (unrecognized arguments:|argument) ?(?P<what>.*)",
        "The engine does not accept an argument: look at args in the settings ({what}).",
    ),
    Cause(
        r"No space left on device",
        "A disk or /dev/shm is full: free some space (containers: raise --shm-size).",
    ),
)


def advice(lines: Sequence[str]) -> str | None:
    """What to do, if the last lines show one of the usual causes."""
    text = "\n".join(lines)
    for cause in CAUSES:
        found = re.search(cause.pattern, text, re.IGNORECASE)
        if found:
            return cause.advice.format(**found.groupdict())
    return None


# What Python and nanobind print when vLLM ends, forty lines of it, whatever the cause.
_NOISE = re.compile(r"^nanobind: | - leaked (instance|type|function) | - \.\.\. skipped|resource_tracker")

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


def load_failure(model_id: str, what_happened: str, lines: Sequence[str], shown: int = 10) -> str:
    """The message of a failed load.

    Args:
        model_id: the model.
        what_happened: the rest of a sentence that begins with "its worker".
        lines: the last ones of its log, all that are kept.
        shown: how many of them to show.
    """
    telling = [line for line in lines if not _NOISE.search(line)]
    cause, what_to_do = root_cause(telling), advice(telling)
    message = f"The model {model_id!r} could not be loaded: its worker {what_happened}."
    message += f" {cause.removesuffix('.')}." if cause else ""
    message += f" {what_to_do}" if what_to_do else ""
    message += " Last lines of its log:\n" + "\n".join(telling[-shown:]) if telling else ""
    return message
