"""What vLLM is told of a model's family: how its tool calls and its reasoning are to be read."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal

from local_llm.arguments import in_config_file, is_off, is_set, value_of
from local_llm.catalog.card import Family, ModelCard
from local_llm.installed_vllm import InstalledVllm, installed_vllm
from local_llm.settings import Settings

HF_PARSER = "hf"
"""Reads answers by what the checkpoint itself says of them; vLLM refuses any other parser beside it."""

log = logging.getLogger(__name__)


def args_of_family(card: ModelCard, settings: Settings, user_args: Sequence[str]) -> list[str]:
    """As `family_args`, for a model; what that warns of is logged, once for each model."""
    if card.family is None:
        return []
    python = settings.model_settings(card.id).python or settings.engines.vllm.python
    args, warnings = family_args(card.family, installed_vllm(python), user_args)
    for warning in warnings:
        _warn_once(card.id, warning)
    return args


@functools.lru_cache(maxsize=1024)
def _warn_once(model_id: str, warning: str) -> None:
    log.warning("model %s: %s", model_id, warning)


def family_args(
    family: Family, installed: InstalledVllm | None, user_args: Sequence[str]
) -> tuple[list[str], list[str]]:
    """What vLLM is told of a model's family. Pure, but for the file that `--config` in the arguments names.

    Args:
        family: the model's.
        installed: what the vLLM that runs it registers; None if that is not known.
        user_args: those of the engine's and the model's settings; what they say is not said again.

    Returns:
        Arguments, and warnings: one sentence for each parser that this vLLM does not have, which is left
        out, since its name would end the start.
    """
    user_args = [*in_config_file(user_args), *user_args]
    warnings: list[str] = []
    args = [each for group in _groups(family.args) if not is_set(user_args, group[0]) for each in group]
    if HF_PARSER in (family.tool_call_parser, family.reasoning_parser) and _chooses_other_parser(user_args):
        return args, warnings
    tools = is_set(user_args, "--tool-call-parser")
    if not tools and not is_off(user_args, "--enable-auto-tool-choice"):
        found = _usable(family, "tool", installed, user_args, warnings)
        tools = found is not None
        args += [] if found is None else ["--tool-call-parser", found]
    if tools and not is_set(user_args, "--enable-auto-tool-choice"):
        # Without it, a request that brings tools and leaves the choice to the model is refused.
        args.append("--enable-auto-tool-choice")
    if not is_set(user_args, "--reasoning-parser"):
        found = _usable(family, "reasoning", installed, user_args, warnings)
        args += [] if found is None else ["--reasoning-parser", found]
    return args, warnings


def _usable(
    family: Family,
    purpose: Literal["tool", "reasoning"],
    installed: InstalledVllm | None,
    user_args: Sequence[str],
    warnings: list[str],
) -> str | None:
    """The family's parser if vLLM will know it; else None, and a warning is added."""
    parser = family.tool_call_parser if purpose == "tool" else family.reasoning_parser
    if parser is None or installed is None or is_set(user_args, f"--{purpose}-parser-plugin"):
        return parser
    registered = installed.tool_parsers if purpose == "tool" else installed.reasoning_parsers
    kind, unread = ("tool-call", "tool calls") if purpose == "tool" else ("reasoning", "reasoning")
    left = f"so it is left out and {unread} of the family {family.name} will stay part of the text"
    if registered is not None and parser not in registered:
        warnings.append(f"vLLM {installed.version} has no {kind} parser {parser!r}, {left}.")
    elif parser in installed.lacking:
        package = installed.lacking[parser]
        warnings.append(f"vLLM's {kind} parser {parser!r} needs the package {package}, {left}.")
    else:
        return parser
    return None


def _chooses_other_parser(user_args: Sequence[str]) -> bool:
    """Whether the user asks for a parser that vLLM would refuse beside "hf"."""
    said = (value_of(user_args, flag) for flag in ("--tool-call-parser", "--reasoning-parser"))
    return any(each not in (None, "", HF_PARSER) for each in said)


def _groups(args: Sequence[str]) -> list[list[str]]:
    """Each flag with its values."""
    groups: list[list[str]] = []
    for arg in args:
        if arg.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(arg)
    return groups
