"""The cores that a process may use, read from trees like those of cgroup versions 1 and 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm_worker.pooling.threads import cgroup_cores, usable_cores


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/box\n", {"box/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/box\n", {"box/cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),  # the parent's
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2.0),  # the least
        ("0::/host/path\n", {"cpu.max": "400000 100000"}, 4.0),  # the host's path, seen in a container
        (
            "4:cpu,cpuacct:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "50000", "cpu/box/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("2:cpuset:/box\n", {}, None),
        ("0::/box\n", {"box/cpu.max": "nonsense"}, None),
    ],
)
def test_quota(tmp_path: Path, own: str, files: dict[str, str], expected: float | None) -> None:
    """The least quota from the process' own cgroup up to the root counts."""
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    assert cgroup_cores(tmp_path / "root", tmp_path / "own") == expected


def test_no_cgroups(tmp_path: Path) -> None:
    """A system without cgroups limits nothing."""
    assert cgroup_cores(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 4), (2.9, 2), (0.5, 1), (64.0, 4)])
def test_usable_cores(monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int) -> None:
    """The quota in whole cores, within the affinity, and never none."""
    monkeypatch.setattr("local_llm_worker.pooling.threads.cgroup_cores", lambda _root, _own: quota)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})

    assert usable_cores() == expected
