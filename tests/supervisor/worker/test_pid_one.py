"""The supervisor as PID 1 of a container without an init: nobody else reaps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Works as root, and for others where user name spaces are allowed.
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


def test_zombies_are_reaped(tmp_path: Path) -> None:
    """Orphans of every session, and nothing is left of a worker.

    Where name spaces are forbidden, as in many containers, as a child subreaper: then of other sessions.
    """
    allowed = subprocess.run([*UNSHARE, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    command = [sys.executable, "-m", "tests.supervisor.worker.pid_one", str(tmp_path)]
    command = [*UNSHARE, *command] if allowed else command
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    assert run.stdout.splitlines() == [f"PID 1: {allowed}", "only the nanny: True", "left: []"]
