"""What `local-llm check` prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from local_llm.catalog.card import BrokenModel, Family
from local_llm.checking.findings import Findings
from local_llm.checking.trial import Trial
from local_llm.footprint.footprint import Footprint
from local_llm.footprint.placement import Placement, Refusal
from local_llm.terminal import size_in_words


def show_findings(found: Findings, console: Console) -> None:
    """Prints everything that is known of a model."""
    card = found.card
    console.print(f"[bold]{escape(card.id)}[/]  {card.kind.value}, run by {card.engine.value}")
    _print_lines(_lines(found), console)


def show_broken(model: BrokenModel, console: Console) -> None:
    """Prints why a folder cannot be served."""
    console.print(f"[bold]{escape(model.id)}[/]  [red]cannot be served:[/] {escape(model.reason)}")


def show_trial(trial: Trial, console: Console) -> None:
    """Prints what became of a start on trial."""
    times = "\n".join(f"{each.seconds:6.1f} s  {each.name}" for each in trial.steps)
    _print_lines([("trial", escape(times)), _outcome(trial)], console)


def _outcome(trial: Trial) -> tuple[str, str]:
    if trial.failure is not None:
        return "failed", f"[red]{escape(trial.failure)}[/]"
    return "answer", f"{escape(trial.answer or '')}  [dim]({trial.asked})[/]"


def _print_lines(lines: Iterable[tuple[str, str]], console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, text)
    console.print(Padding(table, (0, 0, 0, 2)))


def _lines(found: Findings) -> Iterator[tuple[str, str]]:
    card = found.card
    yield "path", escape(str(card.path))
    yield "why", "\n".join(escape(each) for each in card.evidence)
    if card.aliases:
        yield "aliases", escape(", ".join(card.aliases))
    if card.runs_as.family is not None:
        yield "family", escape(_family(card.runs_as.family))
    for origin in found.said:
        yield "settings", escape(f"{origin.key}: {_value(origin.value)}  (models: {origin.pattern!r})")
    yield "weights", escape(_weights(found))
    if found.footprint.layers:
        yield "KV cache", escape(_kv_cache(found.footprint))
    if isinstance(found.fit, Refusal):
        yield "fit", f"[red]does not fit:[/] it {escape(found.fit.reason)}"
    else:
        yield "fit", escape(found.fit.summary())
    for note in dict.fromkeys((*found.footprint.notes, *_notes(found.fit))):
        yield "note", escape(note)
    yield "variables", escape("\n".join(f"{name}={value}" for name, value in found.environment.items()))
    yield "command", escape(shlex.join(found.argv))
    for warning in found.warnings:
        yield "[yellow]warning[/]", escape(warning)


def _family(family: Family) -> str:
    parsers = (
        f"tool calls: {family.tool_call_parser or 'no parser'}",
        f"reasoning: {family.reasoning_parser or 'no parser'}",
    )
    why = family.evidence.removeprefix(f"family {family.name}: ")
    return f"{family.name}; {', '.join(parsers)}\n{why}"


def _weights(found: Findings) -> str:
    weights, quantization = found.footprint.weights, found.footprint.quantization
    loaded = f"{size_in_words(weights.loaded_bytes)} once loaded{'' if weights.exact else ', estimated'}"
    parts = [f"{size_in_words(weights.file_bytes)} of files", loaded]
    return ", ".join(parts if quantization is None else [*parts, quantization.title])


def _kv_cache(footprint: Footprint) -> str:
    parts = []
    if footprint.kv_bytes_per_token:
        parts.append(f"{footprint.kv_bytes_per_token / 1024:g} KiB a token")
    if footprint.window_bytes:
        parts.append(f"{size_in_words(footprint.window_bytes)} of sliding windows a request")
    if footprint.state_bytes:
        parts.append(f"{size_in_words(footprint.state_bytes)} of state a request")
    if footprint.context_length is not None:
        parts.append(f"the model's context is {footprint.context_length:,} tokens")
    return ", ".join(parts)


def _notes(fit: Placement | Refusal) -> tuple[str, ...]:
    return fit.notes if isinstance(fit, Placement) else ()


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(value)
    return shlex.join(map(str, value)) if isinstance(value, tuple) else str(value)
