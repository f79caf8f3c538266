"""A host with GPUs that exist only in a file, for the real binding of NVML.

    gpus = StandIn(tmp_path)
    gpus.write(GPU(used_gib=2), Held(pid=4711, gib=20))
    subprocess.run(..., env=gpus.environment)

`nvml.c` is compiled as libnvidia-ml.so.1; a process started with `environment` finds it first.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class GPU:
    """One device."""

    used_gib: float
    total_gib: float = 24

    def line(self) -> str:
        """In the file."""
        return f"gpu {int(self.total_gib * GIB)} {int(self.used_gib * GIB)}"


@dataclass(frozen=True)
class Lost:
    """One that fell off the bus."""

    def line(self) -> str:
        """In the file."""
        return "lost"


@dataclass(frozen=True)
class Broken:
    """A driver of which no call succeeds."""

    def line(self) -> str:
        """In the file."""
        return "broken"


@dataclass(frozen=True)
class Held:
    """Memory of a device that a process holds, as the driver lists it; None: how much, it does not say."""

    pid: int
    gib: float | None
    gpu: int = 0

    def line(self) -> str:
        """In the file."""
        return f"process {self.gpu} {self.pid} {-1 if self.gib is None else int(self.gib * GIB)}"


class StandIn:
    """Compiles the library into `folder`, and owns the file of its figures."""

    def __init__(self, folder: Path) -> None:
        library = folder / "libnvidia-ml.so.1"
        source = Path(__file__).with_name("nvml.c")
        command = ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True)
        self._figures = folder / "figures"
        path = os.environ.get("LD_LIBRARY_PATH")
        self.environment = {
            "LD_LIBRARY_PATH": f"{folder}:{path}" if path else str(folder),
            "NVML_STAND_IN": str(self._figures),
        }

    def write(self, *lines: GPU | Lost | Broken | Held) -> None:
        """Changes the figures, at once for every reader."""
        new = self._figures.with_suffix(".new")
        new.write_text("".join(each.line() + "\n" for each in lines))
        new.rename(self._figures)
