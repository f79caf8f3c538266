"""How many cores this process may really use.

With more torch threads than free cores a small model fell from 186 to 13 sentences a second, and what
torch counts are the host's cores: neither a container's quota nor `taskset`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """The cores of this process' affinity, or those of its cgroup's quota if that is less; at least 1."""
    quota = cgroup_cores(_CGROUP_ROOT, _OWN_CGROUPS)
    affinity = len(os.sched_getaffinity(0))
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def cgroup_cores(root: Path, own_cgroups: Path) -> float | None:
    """The CPU quota of this process' cgroup and of all above it, in cores; None if none is limited.

    Args:
        root: where the cgroup file system is mounted; version 1 and 2 are read.
        own_cgroups: the file that names this process' cgroups, one ``number:controllers:path`` a line.
    """
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for line in lines for quota in _quotas_of(root, line)]
    return min(quotas, default=None)


def _quotas_of(root: Path, line: str) -> Iterator[float]:
    _, controllers, own_path = line.split(":", 2)
    if controllers == "":
        base, read = root, _read_version_2
    elif "cpu" in controllers.split(","):
        base, read = root / "cpu", _read_version_1
    else:
        return
    # In a container the path may be the host's and not exist here: then the mount's root is our own.
    path = PurePosixPath(own_path.lstrip("/"))
    for each in (path, *path.parents):
        quota = read(base / each)
        if quota is not None:
            yield quota


def _read_version_2(cgroup: Path) -> float | None:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _read_version_1(cgroup: Path) -> float | None:
    try:
        quota = int((cgroup / "cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota <= 0 else quota / period
