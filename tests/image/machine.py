"""The engine that the test uses, and everything on this machine that must be undone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.image.engine import Failed, call, expect

WITH_DOCKER = Path(__file__).with_name("with-docker.sh")
NEEDED_PACKAGES = ("mmdebstrap", "iptables", "iproute2")
NEEDED_GB = 16.0
END_SECONDS = 120.0


def has_engine() -> bool:
    """Whether `docker` and `docker compose` work here."""
    if shutil.which("docker") is None:
        return False
    commands = (("docker", "info"), ("docker", "compose", "version"))
    return all(call(*command, check=False).returncode == 0 for command in commands)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder with enough space, of which nothing stays: no mounts in it either."""
    work = Path(tempfile.mkdtemp(prefix="local-llm-image-"))
    try:
        free_gb = shutil.disk_usage(work).free / 1e9
        expect(free_gb > NEEDED_GB, f"{work} has {free_gb:.0f} GB free; {NEEDED_GB:.0f} are needed (TMPDIR)")
        yield work
    finally:
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            mounted = line.split()[1]
            if mounted.startswith(f"{work}/"):
                call("umount", "--lazy", mounted, check=False)
        shutil.rmtree(work)


@contextmanager
def unpacked_engine() -> Iterator[None]:
    """What with-docker.sh needs of this machine, for as long as it is needed."""
    if os.geteuid() != 0:
        raise Failed("there is no working Docker Engine with Compose here, and only root can unpack one")
    if shutil.which("apt-get") is None:
        raise Failed("there is no working Docker Engine with Compose here, and only Debian can unpack one")
    before = _installed()
    if before.issuperset(NEEDED_PACKAGES):
        yield
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    call("apt-get", "-qq", "update", env=quiet)
    try:
        call("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *NEEDED_PACKAGES, env=quiet)
        yield
    finally:
        added = sorted(_installed() - before)
        if added:
            call("apt-get", "-qq", "purge", "--yes", *added, env=quiet)


def _installed() -> set[str]:
    shown = call("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n").stdout
    return {line.split()[1] for line in shown.splitlines() if line.startswith("installed ")}


def run_with_engine(work: Path, network: str, *command: str | Path) -> None:
    """Runs a command with an engine in `work`, which ends with it; what both say is seen as it comes.

    Args:
        work: the folder; a second call finds the images of the first.
        network: `build` to reach the world from builds, `run` for containers with a network of their own.
        command: finds DOCKER_HOST and BASE_IMAGE in its environment.
    """
    # A group of its own, to be ended as one: bash hears a signal only after its child has ended.
    environment = {**os.environ, "NETWORK": network}
    phase = subprocess.Popen([WITH_DOCKER, work, *command], env=environment, start_new_session=True)
    try:
        code = phase.wait()
    except BaseException:
        os.killpg(phase.pid, signal.SIGTERM)
        phase.wait(END_SECONDS)
        raise
    expect(code == 0, f"the phase {network!r} ended with {code}")
