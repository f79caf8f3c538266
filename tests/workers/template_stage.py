"""The supervisor's end of a real template, and of the nannies that it forks; cold starts beside it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_llm_worker.nanny.proc import descendants

ROOT = Path(__file__).parents[2]
EVENT_SECONDS = 120


class Nanny:
    """One forked, or started, nanny and its worker."""

    def __init__(self, connection: socket.socket, log: int, pid: int, temporary: Path) -> None:
        connection.settimeout(EVENT_SECONDS)
        self.pid = pid
        self.temporary = temporary
        self._socket = connection
        self._events = connection.makefile("rb")
        self._log = os.fdopen(log, "rb")

    def launch(self, module: str, *arguments: str, env: dict[str, str]) -> int:
        """Starts the worker's program; returns its process id."""
        self.temporary.mkdir()
        own = {"TMPDIR": str(self.temporary), "VLLM_RPC_BASE_PATH": str(self.temporary)}
        self._send(
            op="launch",
            argv=[sys.executable, "-m", module, *arguments],
            env={**env, **own, "LOCAL_LLM_WORKER_KEY": "a-key"},
            cwd=str(ROOT),
            temporary=str(self.temporary),
        )
        return int(self.event("started")["pid"])

    def event(self, kind: str) -> dict[str, Any]:
        """The next event, which must be of this kind."""
        event: dict[str, Any] = json.loads(self._events.readline())
        assert event["event"] == kind, (event, self._log.read1())
        return event

    def log_lines(self) -> Iterator[bytes]:
        """What the worker writes, until it has ended."""
        return iter(self._log)

    def log_to_the_end(self) -> str:
        """All that the worker has written, once it has ended."""
        return self._log.read().decode()

    def stop(self) -> None:
        """Asks it to end; returns when it has."""
        self._send(op="stop", grace_seconds=20)
        self.event("exited")
        self.event("gone")

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()
        self._events.close()
        self._log.close()

    def _send(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")


class Template:
    """A template of a real engine.

    Args:
        engine: vllm or transformers.
        architectures: to import.
        folder: of the test.
        env: what the workers get too.
    """

    def __init__(self, engine: str, architectures: Sequence[str], folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._count = 0
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(EVENT_SECONDS)
        command = [sys.executable, "-m", "local_llm_worker.template", "--engine", engine]
        command += ["--control-fd", str(theirs.fileno()), "--architectures", *architectures]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self._events = self._socket.makefile("rb")
        self.ready: dict[str, Any] = json.loads(self._events.readline())

    def fork(self) -> Nanny:
        """A nanny; its parent is the nearest subreaper, which a test has to be."""
        ours, theirs = socket.socketpair()
        log_reader, log_writer = os.pipe()
        socket.send_fds(self._socket, [b'{"op": "fork"}\n'], [theirs.fileno(), log_writer])
        theirs.close()
        os.close(log_writer)
        answer = json.loads(self._events.readline())
        assert answer["event"] == "forked", answer
        self._count += 1
        return Nanny(ours, log_reader, answer["pid"], self._folder / f"w{self._count}")

    def proportional_bytes(self) -> int:
        """What it holds of the machine's memory."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))

    def close(self) -> None:
        """Hangs up; returns when it has left."""
        self._events.close()
        self._socket.close()
        self.process.wait(30)


@contextmanager
def template(
    engine: str, architectures: Sequence[str], folder: Path, env: dict[str, str]
) -> Iterator[Template]:
    """A template, which is gone at the end."""
    made = Template(engine, architectures, folder, env)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def cold_nanny(folder: Path) -> Iterator[Nanny]:
    """As the supervisor starts one without a template."""
    ours, theirs = socket.socketpair()
    log_reader, log_writer = os.pipe()
    fds = (theirs.fileno(), log_writer)
    command = [
        sys.executable,
        "-m",
        "local_llm_worker.nanny",
        "--control-fd",
        str(fds[0]),
        "--log-fd",
        str(fds[1]),
    ]
    process = subprocess.Popen(
        command, pass_fds=fds, stdin=subprocess.DEVNULL, stderr=log_writer, start_new_session=True
    )
    theirs.close()
    os.close(log_writer)
    nanny = Nanny(ours, log_reader, process.pid, folder / "cold")
    try:
        yield nanny
    finally:
        nanny.close()
        process.wait(30)


def reap(nanny: Nanny) -> None:
    """Waits for a forked nanny, whose parent this process has become."""
    nanny.close()
    os.waitpid(nanny.pid, 0)
    assert not [each for each in descendants(os.getpid()) if each.pid == nanny.pid]
