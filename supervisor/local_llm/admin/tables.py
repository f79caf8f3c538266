"""What `local-llm status` shows of a server's status."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from local_llm.terminal import size_in_words

PHASE_STYLES = {"serving": "green", "loading": "yellow", "draining": "cyan", "leaving": "dim"}

LAST_LINES = re.compile(r" [^.]*last lines[^.]*:$", re.IGNORECASE)


def status_view(status: dict[str, Any]) -> RenderableType:
    """A page for people; `status` is what GET /admin/status tells."""
    return Group(*_parts(status))


def _parts(status: dict[str, Any]) -> Iterator[RenderableType]:
    limits = status["limits"]["residency"]
    yield Text.assemble(
        ("local-llm ", "bold"),
        (status["version"], "bold"),
        f"  up {duration_in_words(status['uptime_seconds'])}, {status['waiting']['total']} waiting, "
        f"{len(status['workers'])} of {limits['max_models']} "
        f"{'place' if limits['max_models'] == 1 else 'places'} taken",
    )
    yield from _settings(status.get("settings") or {})
    yield Text()
    yield _workers(status["workers"]) if status["workers"] else Text("No model is loaded.", style="dim")
    if status["templates"]:
        yield Text(f"Warm templates: {_templates(status['templates'])}", style="dim")
    without_worker = _waiting_without_worker(status)
    if without_worker:
        yield Text(f"Waiting for their turn: {without_worker}")
    if status["cooldowns"]:
        yield Text()
        yield _cooldowns(status["cooldowns"])
    if status["models"]:
        yield Text()
        yield _models(status["models"], {each["model"] for each in status["cooldowns"]})


def _settings(settings: dict[str, Any]) -> Iterator[RenderableType]:
    """What of a changed settings file does not hold."""
    if settings.get("refused"):
        yield Text(f"Settings refused, the old ones stay: {settings['refused']}", style="red")
    if settings.get("needs_restart"):
        keys = ", ".join(settings["needs_restart"])
        yield Text(f"Settings that wait for a restart: {keys}", style="yellow")


def _workers(workers: list[dict[str, Any]]) -> Table:
    table = _table("WORKER", "MODEL", "PHASE", ">FOR", ">REQUESTS", ">WAITING", ">MEMORY", ">GPU", ">PID")
    for each in workers:
        memory = each["memory"]
        resident = memory["proportional_bytes"] or memory["resident_bytes"]
        phase = each["phase"] if each["progress"] is None else f"{each['phase']}: {each['progress']}"
        table.add_row(
            escape(each["id"]),
            escape(each["model"]),
            Text(phase, style=PHASE_STYLES.get(each["phase"], "")),
            duration_in_words(each["since_seconds"]),
            str(each["leases"]),
            str(each["waiting"]),
            "-" if resident is None else size_in_words(resident),
            "-" if memory["gpu_bytes"] is None else size_in_words(memory["gpu_bytes"]),
            str(each["pid"] or "-"),
        )
    return table


def _templates(templates: list[dict[str, Any]]) -> str:
    """What each holds; workers that are forked from it share its memory."""
    return ", ".join(f"{each['engine']} ({_template_in_words(each)})" for each in templates)


def _template_in_words(template: dict[str, Any]) -> str:
    held = template["proportional_bytes"]
    return template["state"] if held is None else size_in_words(held)


def _waiting_without_worker(status: dict[str, Any]) -> str:
    loaded = {each["model"] for each in status["workers"]}
    return ", ".join(
        f"{model} ({count})" for model, count in status["waiting"]["by_model"].items() if model not in loaded
    )


def _cooldowns(cooldowns: list[dict[str, Any]]) -> Table:
    table = _table("COOLING DOWN", ">FAILURES", ">LEFT", "WHY")
    for each in cooldowns:
        table.add_row(
            escape(each["model"]),
            str(each["failures"]),
            duration_in_words(each["seconds_left"]),
            escape(_reason(each["error"])),
        )
    return table


def _models(models: dict[str, dict[str, Any]], cooling: set[str]) -> Table:
    table = _table("SEEN", ">SWITCH TAKES", ">STARTS", ">FAILURES", "LAST ERROR")
    for model, each in models.items():
        error = "" if model in cooling or each["last_error"] is None else _reason(each["last_error"])
        ago = f" ({duration_in_words(each['last_error_seconds_ago'])} ago)" if error else ""
        table.add_row(
            escape(model),
            "-" if each["switch_seconds"] is None else f"{each['switch_seconds']:.1f} s",
            str(each["starts"]),
            str(each["failures"]),
            escape(error) + ago,
        )
    return table


def _reason(error: str) -> str:
    """What a message says before it shows the worker's last lines."""
    return LAST_LINES.sub("", error.partition("\n")[0])


def _table(*columns: str) -> Table:
    """`>` before a heading aligns its column to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for each in columns:
        heading = each.removeprefix(">")
        free = heading in {"MODEL", "WHY", "LAST ERROR", "PHASE"}
        table.add_column(
            heading,
            justify="right" if each.startswith(">") else "left",
            no_wrap=not free,
            overflow="fold",
            style="dim" if heading in {"WHY", "LAST ERROR"} else "",
        )
    return table


def duration_in_words(seconds: float) -> str:
    """`4.2 s`, `3:07 min`, `5:12 h`, `12 d`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 2 * 86400:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole // 86400} d"
