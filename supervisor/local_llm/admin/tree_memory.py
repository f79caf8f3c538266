"""What a process and all its descendants take, as the kernel and NVML count it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from local_llm import gpu


@dataclass(frozen=True, slots=True)
class TreeMemory:
    """A process tree.

    Attributes:
        pids: of the processes; the oldest child of the root first, which is a nanny's worker.
        resident_bytes: the sum of what each has in memory; what they share counts in each.
        proportional_bytes: the sum of PSS, which divides what is shared; None if the kernel does not tell.
        gpu_bytes: on all GPUs; None where NVML does not tell, as in many containers.
    """

    pids: tuple[int, ...]
    resident_bytes: int
    proportional_bytes: int | None
    gpu_bytes: int | None


def tree_memories(roots: Iterable[int]) -> dict[int, TreeMemory]:
    """Of each root and its descendants. Takes milliseconds a tree: call it in a thread."""
    on_gpu: dict[int, int] = {}
    for holder in gpu.holders():
        on_gpu[holder.pid] = on_gpu.get(holder.pid, 0) + (holder.used_bytes or 0)
    return {root: memory for root in roots if (memory := _tree_memory(root, on_gpu)) is not None}


def _tree_memory(root: int, on_gpu: dict[int, int]) -> TreeMemory | None:
    try:
        process = psutil.Process(root)
        below = process.children(recursive=True)
        direct = {each.pid for each in process.children()}
    except psutil.NoSuchProcess:
        return None
    # The nanny is a subreaper: orphans become its children later than the worker it began with.
    below.sort(key=lambda each: (each.pid not in direct, each.create_time()))
    resident = 0
    proportional: list[int | None] = []
    for each in [process, *below]:
        with suppress(psutil.Error):
            has = int(each.memory_info().rss)
            resident += has
            if has:  # a zombie has nothing, and no maps to read
                proportional.append(_proportional_bytes(each.pid))
    pids = tuple(each.pid for each in below)
    held = [on_gpu[pid] for pid in pids if pid in on_gpu]
    return TreeMemory(
        pids,
        resident,
        None if None in proportional else sum(each or 0 for each in proportional),
        sum(held) if held else None,
    )


def _proportional_bytes(pid: int) -> int | None:
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Pss":
                return int(value.split()[0]) << 10
    return None
