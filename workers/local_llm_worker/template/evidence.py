"""What a template can prove of itself: that it is untouched, what it costs, and that it is up to date."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from local_llm_worker.template.errors import Unfit

_GPU_COMPUTE_FILES = ("/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", "/dev/kfd")


def check_untouched() -> None:
    """That no GPU was touched: a driver's context does not survive a fork, and holds memory.

    Raises:
        Unfit: it was.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise Unfit("importing the engine initialised CUDA, which does not survive a fork")
    for each in Path("/proc/self/fd").iterdir():
        target = _target(each)
        if target.startswith(_GPU_COMPUTE_FILES):
            raise Unfit(f"importing the engine opened {target}")


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def thread_count() -> int:
    """Threads of this process, those of libraries too."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names only


def proportional_bytes() -> int:
    """This process' proportional set size: pages shared with others count by their share."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class Installation:
    """The packages as they were when they were imported."""

    def __init__(self) -> None:
        self._folders = {Path(each) for each in sys.path if each and Path(each).is_dir()}
        self._stamps = self._look()

    def change(self) -> str | None:
        """What is no longer as it was, in a sentence's words; None if all is."""
        now = self._look()
        for folder, stamp in self._stamps.items():
            if now.get(folder) != stamp:
                return f"packages in {folder} have changed since it was made"
        return None

    def _look(self) -> dict[Path, int | None]:
        return {folder: _changed_at(folder) for folder in self._folders}


def _changed_at(folder: Path) -> int | None:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return None
