"""A small server of somebody's own: it knows no key, no names and none of our arguments.

    command = own_server("--port", "{port}", "--name", "{id}", "--file", "{path}")

`server.py` lists its flags. It answers /ready, /v1/models and /v1/chat/completions, streams too.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SERVER = Path(__file__).with_name("server.py")


def own_server(*arguments: str) -> list[str]:
    """Its command, for `models.<id>.command`."""
    return [sys.executable, "-I", "-S", str(_SERVER), *arguments]
