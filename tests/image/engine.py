"""Commands to the Docker engine and to Compose, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICE = "local-llm"
PROJECT = "local-llm-image-test"
"""Names the test's containers, networks, volumes and images, none of which is anybody else's."""


class Failed(Exception):
    """What was expected did not happen; the message says what did."""


def expect(truth: object, otherwise: str) -> None:
    """Raises `Failed` with `otherwise` unless `truth` is true."""
    if not truth:
        raise Failed(otherwise)


def call(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and captures what it says.

    Raises:
        Failed: it did not succeed, and `check` is set; with the last of what it said.
    """
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if check and done.returncode != 0:
        words = " ".join(str(each) for each in command)
        raise Failed(f"{words[:300]}\nended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done


@contextmanager
def step(what: str, figures: dict[str, float] | None = None) -> Iterator[None]:
    """Prints a step and how long it took; keeps that in `figures`."""
    started = time.monotonic()
    print(f"   {what} ...", end=" ", flush=True)
    yield
    seconds = time.monotonic() - started
    if figures is not None:
        figures[what] = seconds
    print(f"{seconds:.1f} s", flush=True)


@dataclass
class Compose:
    """The project's Compose files with the settings of this test.

    Attributes:
        checkout: the folder they lie in.
        settings: what else .env would say.
        gpu: whether the file for the GPU is added.
    """

    checkout: Path
    settings: dict[str, str] = field(default_factory=dict)
    gpu: bool = False

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """`docker compose ...`; returns what it says."""
        files = ["-f", "compose.yaml", *(["-f", "compose.gpu.yaml"] if self.gpu else [])]
        command = ["docker", "compose", "--project-name", PROJECT, *files, *arguments]
        return call(*command, cwd=self.checkout, env=self.settings, check=check).stdout

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the service's container; it may fail."""
        return call("docker", "exec", self.container(), *command, check=False)

    def container(self) -> str:
        """The id of the service's container, running or not."""
        return self("ps", "--all", "--quiet", SERVICE).strip()

    def inspect(self) -> dict[str, Any]:
        """What the engine knows of the service's container."""
        found: list[dict[str, Any]] = json.loads(call("docker", "inspect", self.container()).stdout)
        return found[0]

    def url(self) -> str:
        """Where the service is reached from this machine, without a path."""
        return f"http://{self('port', SERVICE, '8000').strip()}"

    def remove(self) -> None:
        """Containers, networks, volumes and images of this test."""
        self("--profile", "client", "down", "--volumes", "--remove-orphans", "--timeout", "5", check=False)
        for image in (self.settings["IMAGE"], self.settings["CLIENT_IMAGE"], self.settings["WHEELS_IMAGE"]):
            if image != "scratch":
                call("docker", "image", "rm", "--force", image, check=False)
