"""`local-llm check` from its argument to its exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import typer
from rich.console import Console
from rich.markup import escape

from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.walk import ModelsDirUnreadable
from local_llm.checking.findings import Findings, examine
from local_llm.checking.selection import select
from local_llm.checking.trial import Trial, try_out
from local_llm.checking.view import show_broken, show_findings, show_trial
from local_llm.errors import LoadFailed, ModelNotFound
from local_llm.footprint.placement import Placement
from local_llm.logs import set_up_logging
from local_llm.settings import Settings

ALL_CAN_BE_SERVED, NOT_ALL_CAN, NO_SUCH_MODEL = 0, 1, 2


def check_models(asked: str, settings: Settings, *, run: bool, as_json: bool) -> int:
    """Checks what `asked` means, and prints what was found.

    Args:
        asked: an id, an alias, a model's folder, or a folder of models.
        settings: all of them.
        run: start each on trial.
        as_json: print one JSON object in place of text.

    Returns:
        The exit status.
    """
    # A worker's life is told by the trial itself; what is wrong with it comes as its failure.
    set_up_logging(settings.model_copy(update={"log_level": "error"}))
    try:
        settings, models = select(asked, settings)
    except (ModelNotFound, ModelsDirUnreadable) as error:
        typer.echo(f"local-llm: {error}", err=True)
        return NO_SUCH_MODEL
    if not models:
        typer.echo(f"local-llm: there is no model in {asked}", err=True)
        return NO_SUCH_MODEL
    console = Console()
    told = [_check(each, settings, console, run=run, as_json=as_json) for each in models]
    if as_json:
        typer.echo(json.dumps({"models": told}, indent=2, ensure_ascii=False))
    return ALL_CAN_BE_SERVED if all(each["ok"] for each in told) else NOT_ALL_CAN


def _check(
    model: ModelCard | BrokenModel, settings: Settings, console: Console, *, run: bool, as_json: bool
) -> dict[str, Any]:
    """Checks one, prints it unless the answer is wanted as JSON, and returns that."""
    quiet = Console(quiet=True) if as_json else console
    if isinstance(model, ModelCard):
        try:
            found = examine(model, settings, os.environ)
        except LoadFailed as error:
            model = BrokenModel(model.id, model.path, error.message)
    if isinstance(model, BrokenModel):
        show_broken(model, quiet)
        return {"ok": False, "id": model.id, "path": str(model.path), "reason": model.reason}
    show_findings(found, quiet)
    if not run or not isinstance(found.fit, Placement):
        return {"ok": isinstance(found.fit, Placement), **found.as_json()}
    trial = _run(found, settings)
    show_trial(trial, quiet)
    return {"ok": trial.failure is None, **found.as_json(), "trial": trial.as_json()}


def _run(found: Findings, settings: Settings) -> Trial:
    with _progress() as show:
        return anyio.run(partial(try_out, found.card, settings, os.environ, show))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Shows what is being done: at a terminal in place, else a line for each new thing."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda text: status.update(escape(text))
        return
    last = ""

    def show(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            console.print(text, markup=False)

    yield show
