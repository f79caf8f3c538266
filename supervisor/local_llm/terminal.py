"""What people see: the table of models, and the lines that `serve` begins with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local_llm import __version__
from local_llm.catalog.card import Kind, ModelCard
from local_llm.catalog.catalog import Snapshot
from local_llm.settings import Settings

EXAMPLES: dict[Kind, tuple[str, dict[str, Any]]] = {
    Kind.CHAT: (
        "/v1/chat/completions",
        # Not left to chance: at its usual temperature the demonstration's model says anything.
        {"temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France?"}]},
    ),
    Kind.BASE: ("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 16}),
    Kind.EMBEDDING: ("/v1/embeddings", {"input": "The capital of France"}),
    Kind.RERANKER: (
        "/v1/rerank",
        {"query": "capital of France", "documents": ["Paris is in France.", "Cats sleep."]},
    ),
}
"""For the curl line: one request that shows a kind of model at work, in the order of preference."""


WIDE_COLUMNS = 100
"""From this width on the evidence stands beside each model; in a narrower terminal, below the table."""


def size_in_words(size_bytes: int) -> str:
    """`269 MB`, `14.2 GB`: decimal units, as model pages state them."""
    if size_bytes < 1e9:
        return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e9:.1f} GB"


def _printable(path: Path) -> str:
    # A file system may hold names that are no UTF-8; Python has them as text that cannot be printed.
    return os.fsencode(path).decode(errors="replace")


def show_models(
    found: Snapshot, folder: Path, console: Console | None = None, *, with_evidence: bool = True
) -> None:
    """Prints the table of models, and below it what cannot be served."""
    console = console or Console()
    if not found.models and not found.broken:
        console.print(
            f"No models in {escape(str(folder))}. A model is a folder with config.json and weights."
        )
        return
    if found.models:
        beside = with_evidence and console.width >= WIDE_COLUMNS
        console.print(_table(found, with_evidence=beside))
        if with_evidence and not beside:
            console.print()
            for card in found.models:
                console.print(f"{escape(card.id)}: [dim]{escape('; '.join(card.evidence))}[/]")
    for broken in found.broken:
        console.print(f"[red]cannot be served:[/] [bold]{escape(broken.id)}[/]  {escape(broken.reason)}")


def _table(found: Snapshot, *, with_evidence: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MODEL", no_wrap=True)
    table.add_column("KIND", no_wrap=True)
    table.add_column("ENGINE", no_wrap=True)
    table.add_column("SIZE", justify="right", no_wrap=True)
    table.add_column("CONTEXT", justify="right", no_wrap=True)
    if with_evidence:
        table.add_column("WHY", overflow="fold", style="dim")
    for card in found.models:
        evidence = [escape("; ".join(card.evidence))] if with_evidence else []
        table.add_row(
            escape(card.id),
            card.kind.value,
            card.engine.value,
            size_in_words(card.size_bytes),
            str(card.context_length or "-"),
            *evidence,
        )
    return table


def show_banner(found: Snapshot, settings: Settings, port: int, console: Console | None = None) -> None:
    """Prints the URL, the models and a line to try. For people: with JSON logs it stays away."""
    console = console or Console()
    if settings.log_format == "json" or (settings.log_format == "auto" and not console.is_terminal):
        return
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared only
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console.print(f"\n[bold]local-llm {__version__}[/] serves [bold]{escape(str(settings.models_dir))}[/]\n")
    show_models(found, settings.models_dir, console, with_evidence=False)
    console.print(f"\nOpenAI base URL:  [bold]{url}/v1[/]")
    example = _example(found)
    if example is not None:
        console.print("Try it:\n")
        console.print(curl_line(url, example, with_key=_has_keys(settings)), soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops it.\n")


def _has_keys(settings: Settings) -> bool:
    return bool(settings.api_keys or settings.api_keys_file)


def _example(found: Snapshot) -> ModelCard | None:
    for kind in EXAMPLES:
        fitting = [card for card in found.models if card.kind is kind]
        if fitting:
            return min(fitting, key=lambda card: card.size_bytes)
    return None


def curl_line(url: str, card: ModelCard, *, with_key: bool) -> str:
    """A command that asks `card` something fit for its kind."""
    path, body = EXAMPLES[card.kind]
    key = ' -H "Authorization: Bearer $KEY"' if with_key else ""
    request = json.dumps({"model": card.id, **body}).replace("'", "'\\''")
    return f"  curl {url}{path} -H 'Content-Type: application/json'{key} \\\n    -d '{request}'"
