"""What people see: the table of models, and the lines that `serve` begins with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local_llm import __version__
from local_llm.catalog.card import Kind, ModelCard
from local_llm.catalog.catalog import Snapshot
from local_llm.examples import example
from local_llm.settings import Settings

if TYPE_CHECKING:
    from local_llm.checking.overview import Overview

SHOWN_FIRST = (
    Kind.CHAT,
    Kind.VISION_LANGUAGE,
    Kind.BASE,
    Kind.EMBEDDING,
    Kind.RERANKER,
    Kind.CLASSIFIER,
    Kind.TRANSCRIPTION,
)
"""For the curl line: the kind of model that is best to begin with."""


WIDE_COLUMNS = 200
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
    found: Snapshot,
    folder: Path,
    console: Console | None = None,
    overviews: Mapping[str, Overview] | None = None,
) -> None:
    """Prints the table of models, and below it what cannot be served.

    Args:
        found: the models.
        folder: that they lie in.
        console: to print on.
        overviews: what is known of their memory, by id. With them the evidence is shown too.
    """
    console = console or Console()
    if not found.models and not found.broken:
        console.print(
            f"No models in {escape(str(folder))}. A model is a folder with config.json and weights."
        )
        return
    if found.models:
        beside = overviews is not None and console.width >= WIDE_COLUMNS
        console.print(_table(found, overviews, console.width))
        if overviews is not None and not beside:
            console.print()
            for card in found.models:
                console.print(f"{escape(card.id)}: [dim]{escape('; '.join(card.evidence))}[/]")
    for broken in found.broken:
        console.print(f"[red]cannot be served:[/] [bold]{escape(broken.id)}[/]  {escape(broken.reason)}")
    for model_id, overview in (overviews or {}).items():
        if overview.refusal is not None:
            console.print(f"[red]does not fit:[/] [bold]{escape(model_id)}[/]  {escape(overview.refusal)}")


def _table(found: Snapshot, overviews: Mapping[str, Overview] | None, width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("MODEL", "KIND", "ENGINE"):
        table.add_column(name, no_wrap=True)
    for name in ("SIZE", "CONTEXT"):
        table.add_column(name, justify="right", no_wrap=True)
    if overviews is not None:
        table.add_column("FITS", no_wrap=True)
        table.add_column("QUANTIZED")
        table.add_column("PARSERS")
    if overviews is not None and width >= WIDE_COLUMNS:
        table.add_column("WHY", overflow="fold", style="dim")
    for card in found.models:
        row = [escape(card.id), card.kind.value, card.engine.value, size_in_words(card.size_bytes)]
        if overviews is None:
            row.append(str(card.context_length or "-"))
        else:
            row += _overview_cells(overviews[card.id])
        if overviews is not None and width >= WIDE_COLUMNS:
            row.append(escape("; ".join(card.evidence)))
        table.add_row(*row)
    return table


def _overview_cells(overview: Overview) -> list[str]:
    context, fitting = overview.context_length, overview.fitting_context
    fits = "yes" if overview.fits else "[red]no[/]"
    if context is not None and fitting is not None and fitting < context:
        fits = f"to {fitting}"
    return [
        str(context or "-"),
        fits,
        escape(overview.quantization or "-"),
        escape(", ".join(overview.parsers) or "-"),
    ]


def show_banner(found: Snapshot, settings: Settings, port: int, console: Console | None = None) -> None:
    """Prints the URL, the models and a line to try. For people: with JSON logs it stays away."""
    console = console or Console()
    if settings.log_format == "json" or (settings.log_format == "auto" and not console.is_terminal):
        return
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared only
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console.print(f"\n[bold]local-llm {__version__}[/] serves [bold]{escape(str(settings.models_dir))}[/]\n")
    show_models(found, settings.models_dir, console)
    console.print(f"\nOpenAI base URL:  [bold]{url}/v1[/]")
    example = _example(found)
    if example is not None:
        console.print("Try it:\n")
        console.print(curl_line(url, example, with_key=_has_keys(settings)), soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops it.\n")


def _has_keys(settings: Settings) -> bool:
    return bool(settings.api_keys or settings.api_keys_file)


def _example(found: Snapshot) -> ModelCard | None:
    for kind in SHOWN_FIRST:
        fitting = [card for card in found.models if card.kind is kind]
        if fitting:
            return min(fitting, key=lambda card: card.size_bytes)
    return None


def curl_line(url: str, card: ModelCard, *, with_key: bool) -> str:
    """A command that asks `card` something fit for its kind."""
    # A picture would fill the screen, and one may ask without.
    shown = example(Kind.CHAT if card.kind is Kind.VISION_LANGUAGE else card.kind)
    key = ' -H "Authorization: Bearer $KEY"' if with_key else ""
    if shown.file is not None:
        name = card.id.replace("'", "'\\''")
        return f"  curl {url}{shown.path}{key} \\\n    -F 'model={name}' -F file=@YOUR_FILE"
    request = json.dumps({"model": card.id, **shown.body}).replace("'", "'\\''")
    return f"  curl {url}{shown.path} -H 'Content-Type: application/json'{key} \\\n    -d '{request}'"
