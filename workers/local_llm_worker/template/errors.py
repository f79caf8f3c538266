"""Why there is no template."""

from __future__ import annotations


class Unfit(Exception):
    """The engine cannot be forked from a template; the message says why."""
