"""`local-llm status --watch`: the status, again and again, until Ctrl-C."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from local_llm.admin.client import AdminClient, AdminError
from local_llm.admin.tables import status_view

EVERY_SECONDS = 1.0


def watch(client: AdminClient, *, as_json: bool) -> None:
    """Shows the status live; while the server does not answer, what it last was and why it does not.

    Args:
        client: of the server.
        as_json: instead, one line a second, of those seconds in which it answers.

    Raises:
        AdminError: one that no waiting mends, such as a wrong key.
    """
    if as_json:
        for status, _ in _looks(client):
            if status is not None:
                sys.stdout.write(json.dumps(status) + "\n")
                sys.stdout.flush()
        return
    last: RenderableType = Text("")
    with Live(console=Console(), auto_refresh=False, screen=False) as live:
        for status, problem in _looks(client):
            if status is not None:
                last = status_view(status)
            trouble = [] if problem is None else [Text(f"\n{problem} Trying again.", style="red")]
            live.update(Group(last, *trouble), refresh=True)


def _looks(client: AdminClient) -> Iterator[tuple[dict[str, Any] | None, AdminError | None]]:
    while True:
        try:
            yield client.status(), None
        except AdminError as problem:
            if not problem.may_pass:
                raise
            yield None, problem
        time.sleep(EVERY_SECONDS)
