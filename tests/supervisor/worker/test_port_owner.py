"""Whether the worker itself listens on its port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.errors import LoadFailed
from local_llm.worker.launcher import Launcher
from local_llm.worker.port_owner import stranger_on
from tests.own_server import own_server
from tests.supervisor.worker.stage import fake_settings

_LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_an_address_as_java_writes_it() -> None:
    """A socket of both kinds, bound to 127.0.0.1."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        assert stranger_on(listener.getsockname()[1], os.getppid()) is None


def test_a_process_below(tmp_path: Path) -> None:
    """A child's child in a session of its own counts; a process elsewhere is named."""
    call = f"subprocess.call([sys.executable, '-c', {_LISTEN!r}], start_new_session=True)"
    through = f"import subprocess, sys; {call}"
    with subprocess.Popen(
        [sys.executable, "-c", through],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())
        assert stranger_on(port, process.pid) is None
        assert stranger_on(port, os.getpid()) is None
        process.stdin.close()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        told = stranger_on(port, 2**22 + 1)
    assert told is not None
    assert f"(process {os.getpid()})" in told


async def test_a_command_whose_port_another_has(tmp_path: Path) -> None:
    """It answers as it should, and is not taken for the worker: the error names who listens."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "{port}"]
    models = {"own": {"engine": "command", "command": command, "ready_path": "/ready"}}
    card = ModelCard("own", tmp_path, Kind.CHAT, Engine.COMMAND, ())
    async with Launcher(fake_settings(tmp_path, models=models)) as launcher:
        worker = launcher.worker(card)
        port = worker.base_url.rpartition(":")[2]
        async with await anyio.open_process(own_server("--port", port), stdout=None) as stranger:
            with pytest.raises(LoadFailed, match=r"does not listen on its port \d+ itself") as failure:
                await worker.start()
            assert f"(process {stranger.pid})" in failure.value.message
            stranger.kill()
