"""How a worker ended, in words, and what the host's memory has to do with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_llm.gpu import HostMemory
from local_llm.worker import memory_witness
from local_llm.worker.memory_witness import oom_kills
from local_llm.worker.outcome import Ended, Outcome

GIB = 1 << 30


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(3, None, (), asked=False), "ended with exit code 3"),
        (Ended(0, None, (), asked=True), "ended with exit code 0"),
        (Ended(1, None, (), asked=False, memory="2 left"), "ended with exit code 1: 2 left"),
        (Ended(None, 11, (), asked=False), "was killed by SIGSEGV"),
        (Ended(None, 9, (), asked=False, memory="2 left"), "was killed by SIGKILL: 2 left"),
        (Ended(None, 9, (), asked=True), "was killed by SIGKILL"),
        (Ended(None, 63, (), asked=False), "was killed by signal 63"),
        (Ended(None, None, (), asked=False, not_started="no file"), "could not be started (no file)"),
        (Ended(None, 9, (), asked=False, killed_since="was silent"), "was silent and was killed"),
    ],
)
def test_in_words(ended: Ended, words: str) -> None:
    """For people."""
    assert ended.in_words() == words


class Host:
    """The host's memory as a test has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_gib, self.kills = 30.0, 4
        monkeypatch.setattr(memory_witness, "host_memory", self._memory)
        monkeypatch.setattr(memory_witness, "oom_kills", lambda: self.kills)

    def _memory(self) -> HostMemory:
        return HostMemory(64 * GIB, int(self.free_gib * GIB))


@pytest.mark.parametrize(
    ("free_gib", "kills", "words"),
    [
        (0.3, 4, "was killed by SIGKILL: probably out of memory, the host had 0.3 GiB left"),
        (0.3, 5, "was killed by SIGKILL: out of memory, as the kernel has it; the host had 0.3 GiB left"),
        (9.0, 5, "was killed by SIGKILL: out of memory, as the kernel has it; the host had 9.0 GiB left"),
        (9.0, 4, "was killed by SIGKILL: the host had 9.0 GiB left, so somebody else may have sent it"),
    ],
)
def test_sigkill(monkeypatch: pytest.MonkeyPatch, free_gib: float, kills: int, words: str) -> None:
    """The figure is that of the last look, since a death gives memory back; the kernel's count is today's."""
    host = Host(monkeypatch)
    outcome = Outcome()
    host.free_gib = free_gib
    outcome.look()
    host.free_gib, host.kills = 30.0, kills
    outcome.exited(None, 9)
    host.kills += 1
    assert outcome.ended(()).in_words() == words


@pytest.mark.parametrize("seen_by_a_look", [True, False])
def test_a_killed_engine_process(monkeypatch: pytest.MonkeyPatch, seen_by_a_look: bool) -> None:
    """The kernel kills one of vLLM's engine processes; the main one ends seconds later, with code 1."""
    host = Host(monkeypatch)
    outcome = Outcome()
    host.free_gib, host.kills = 0.2, 5
    if seen_by_a_look:
        outcome.look()
    outcome.exited(1, None)
    words = "ended with exit code 1: out of memory, as the kernel has it; the host had 0.2 GiB left"
    assert outcome.ended(()).in_words() == words


def test_an_exit_is_not_blamed_on_old_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the worker, or long before its end."""
    host = Host(monkeypatch)
    outcome = Outcome()
    host.kills += 1
    outcome.look()
    monkeypatch.setattr(memory_witness, "_RECENT_SECONDS", 0.0)
    outcome.exited(1, None)
    assert outcome.ended(()).in_words() == "ended with exit code 1"


def test_our_own_sigkill_is_not_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a grace, say."""
    Host(monkeypatch)
    outcome = Outcome()
    outcome.asked = True
    outcome.exited(None, 9)
    assert outcome.ended(()).in_words() == "was killed by SIGKILL"


def test_the_kernels_count(tmp_path: Path) -> None:
    """Of /proc/vmstat; nothing where it is missing or says nothing."""
    vmstat, nowhere = tmp_path / "vmstat", tmp_path / "nowhere"
    assert oom_kills(vmstat, nowhere) == 0
    vmstat.write_text("pgfault 12\n")
    assert oom_kills(vmstat, nowhere) == 0
    vmstat.write_text("pgfault 12\noom_kill 3\nx 1\n")
    assert oom_kills(vmstat, nowhere) == 3


@pytest.mark.parametrize(
    ("cgroups", "counter"),
    [
        ("0::/a/b\n", "a/b/memory.events"),
        ("0::/\n", "memory.events"),
        ("4:memory:/a\n0::/\n", "memory/a/memory.oom_control"),
        ("4:cpu,memory:/docker/1234\n0::/\n", "memory/memory.oom_control"),
    ],
)
def test_the_own_cgroups_count_comes_first(tmp_path: Path, cgroups: str, counter: str) -> None:
    """Of the versions 2 and 1, on a host and in a container; the host's count has its neighbours' too."""
    vmstat, own, root = tmp_path / "vmstat", tmp_path / "cgroup", tmp_path / "root"
    vmstat.write_text("oom_kill 7\n")
    own.write_text(cgroups)
    (root / counter).parent.mkdir(parents=True)
    (root / counter).write_text("under_oom 0\noom_kill 2\n")
    assert oom_kills(vmstat, own, root) == 2
