"""Measured switch costs, kept between runs. A convenience: nothing needs it, and nothing fails with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from local_llm.settings import Settings
from local_llm.switchboard.switch_costs import REMEMBERED_MODELS, SwitchCosts

log = logging.getLogger(__name__)

FILE_NAME = "switch-costs.json"
LARGEST_FILE_BYTES = 1 << 20


class _Content(msgspec.Struct):
    switch_seconds: dict[str, Annotated[float, msgspec.Meta(ge=0)]]


def state_folder(settings: Settings, environment: Mapping[str, str]) -> Path:
    """`state_dir` of the settings, else where the XDG standard has state.

    Raises:
        RuntimeError: there is no home directory; from pathlib.
    """
    if settings.state_dir is not None:
        return settings.state_dir.expanduser()
    base = Path(environment.get("XDG_STATE_HOME", ""))
    # The standard says to pass over a relative path, and over an empty one.
    return (base if base.is_absolute() else Path.home() / ".local" / "state") / "local-llm"


class CostFile:
    """The file. What is wrong with it is logged as one warning, however often it goes wrong.

    Two servers that share the folder overwrite one another's; each then measures anew.

    Args:
        settings: `state_dir`.
        environment: HOME and XDG_STATE_HOME.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._warned = False

    def read(self) -> SwitchCosts:
        """What was measured in earlier runs; nothing if there is no file that can be read."""
        try:
            with self._path().open("rb") as file:
                content = msgspec.json.decode(file.read(LARGEST_FILE_BYTES), type=_Content)
        except FileNotFoundError:
            return SwitchCosts()
        except (OSError, RuntimeError, ValueError) as problem:  # ValueError: msgspec's, and bad UTF-8
            self._warn(problem)
            return SwitchCosts()
        return SwitchCosts(dict(list(content.switch_seconds.items())[-REMEMBERED_MODELS:]))

    def write(self, costs: SwitchCosts) -> None:
        """Replaces the file at once or not at all. On the event loop: a few kilobytes, once a switch."""
        content = _Content({model: round(each, 3) for model, each in costs.seconds.items()})
        try:
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(path.name + ".new")
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
            fresh.replace(path)
        except (OSError, RuntimeError) as problem:
            self._warn(problem)

    def _path(self) -> Path:
        return state_folder(self._settings, self._environment) / FILE_NAME

    def _warn(self, problem: object) -> None:
        if not self._warned:
            self._warned = True
            log.warning("measured switch costs cannot be kept between runs (state_dir): %s", problem)
