"""The command line. What it does lives elsewhere; here is only how it is called and how it looks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from local_llm import __version__
from local_llm.settings import Settings
from local_llm.settings_sources import SettingsError, load_settings

if TYPE_CHECKING:
    from local_llm.admin.client import AdminClient

app = typer.Typer(
    name="local-llm",
    help="One OpenAI-compatible URL for a folder of Hugging Face models and one GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelsFlag = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="The folder that holds the models. [default: models]"),
]
ConfigFlag = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="LOCAL_LLM_CONFIG",
        help="A YAML file of settings; config/local-llm.yaml shows every key.",
    ),
]

UrlFlag = Annotated[str, typer.Option("--url", metavar="URL", help="Of the running server.")]
KeyFlag = Annotated[
    str | None,
    typer.Option("--key", "-k", metavar="KEY", envvar="LOCAL_LLM_KEY", help="If the server wants one."),
]
LOCAL_URL = "http://127.0.0.1:8000"


def main() -> None:
    """The program `local-llm`."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    models: ModelsFlag = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")
    ] = None,
    config: ConfigFlag = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="auto|human|json", help="How log lines look. [default: auto]")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="debug|info|warning|error", help="[default: info]")
    ] = None,
) -> None:
    """Serve all models of a folder at one OpenAI-compatible URL.

    Every flag is also a key of the settings file and an environment variable (LOCAL_LLM_PORT=8000).
    The first Ctrl-C lets running requests finish, the second one does not.
    """
    import uvloop

    from local_llm import allocator, logs, server, terminal
    from local_llm.catalog.catalog import Catalog
    from local_llm.catalog.walk import ModelsDirUnreadable
    from local_llm.gateway.keys import KeysUnreadable, load_keys
    from local_llm.live_settings import LiveSettings

    allocator.stay_small()
    flags = {
        "models_dir": models,
        "host": host,
        "port": port,
        "log_format": log_format,
        "log_level": log_level,
    }
    try:
        live = LiveSettings(config, os.environ, flags)
    except SettingsError as error:
        _fail(str(error))
    settings = live.current
    logs.set_up_logging(settings)
    try:
        found = Catalog(settings).snapshot()
        keys = load_keys(settings)
        listener = server.listen(settings)
    except (ModelsDirUnreadable, KeysUnreadable, server.AddressInUse) as error:
        _fail(str(error))
    terminal.show_banner(found, settings, listener.getsockname()[1])
    server.raise_descriptor_limit()
    uvloop.run(server.serve(live, listener, keys))


@app.command("models")
def list_models(
    models: ModelsFlag = None,
    config: ConfigFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show what is in the folder: each model's kind, engine, size, whether it fits here, and why."""
    from local_llm import terminal
    from local_llm.catalog.catalog import Catalog
    from local_llm.catalog.walk import ModelsDirUnreadable
    from local_llm.checking.overview import overview

    settings = _settings(config, models_dir=models)
    try:
        found = Catalog(settings).snapshot()
    except ModelsDirUnreadable as error:
        _fail(str(error))
    overviews = overview(found.models, settings, os.environ)
    if as_json:
        told = found.as_json()
        for each in told["models"]:
            each.update(overviews[each["id"]].as_json())
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        terminal.show_models(found, settings.models_dir, overviews=overviews)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="An id, an alias, a model's folder, or a folder of models.")],
    models: ModelsFlag = None,
    config: ConfigFlag = None,
    run: Annotated[
        bool, typer.Option("--run", help="Start it, ask it one thing, stop it; with the time of each phase.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show all that is known of a model: why it is what it is, its command line, memory, and warnings.

    Exit status: 0 if all that was asked for can be served, 1 if not, 2 if there is no such model.
    """
    from local_llm.checking.checking import check_models

    raise typer.Exit(check_models(model, _settings(config, models_dir=models), run=run, as_json=as_json))


@app.command()
def status(
    url: UrlFlag = LOCAL_URL,
    key: KeyFlag = None,
    watch: Annotated[bool, typer.Option("--watch", help="Live, until Ctrl-C.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs; with --watch one object a line.")
    ] = False,
) -> None:
    """Show a running server: its workers, who waits, what failed, what a switch takes."""
    from rich.console import Console

    from local_llm.admin import watching
    from local_llm.admin.tables import status_view

    try:
        with _asking(url, key) as client:
            if watch:
                watching.watch(client, as_json=as_json)
            found = client.status()
    except KeyboardInterrupt:  # how --watch is left
        raise typer.Exit from None
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        Console().print(status_view(found))


@app.command()
def load(
    model: Annotated[str, typer.Argument(help="Its id or alias.")],
    url: UrlFlag = LOCAL_URL,
    key: KeyFlag = None,
) -> None:
    """Load a model into a running server; returns when it is ready. Past failures are forgotten."""
    with _asking(url, key) as client:
        typer.echo(f"{client.load(model)['model']} is loaded")


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="Its id or alias.")],
    url: UrlFlag = LOCAL_URL,
    key: KeyFlag = None,
) -> None:
    """Let a model of a running server go, once its running requests are answered."""
    with _asking(url, key) as client:
        told = client.unload(model)
    typer.echo(f"{told['model']} is {'being unloaded' if told['state'] == 'unloading' else 'not loaded'}")


@contextmanager
def _asking(url: str, key: str | None) -> Iterator[AdminClient]:
    """A client of a running server; what it refuses ends the program with a line."""
    from local_llm.admin.client import AdminClient, AdminError

    try:
        with AdminClient(url, key) as client:
            yield client
    except AdminError as error:
        _fail(str(error))


def _settings(config: Path | None, **flags: Any) -> Settings:
    try:
        return load_settings(config, os.environ, flags)
    except SettingsError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(f"local-llm: {message}", err=True)
    raise typer.Exit(2)
