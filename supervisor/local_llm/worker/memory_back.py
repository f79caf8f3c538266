"""The proof that an ended worker's device memory is back, and the refusal to launch into too little of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import anyio

from local_llm.errors import LoadFailed
from local_llm.gpu import Device, devices, holders, in_gib

# Drivers keep a little of what a process had; below this the memory counts as returned.
_RETURNED_WITHIN_BYTES = 256 << 20
_POLL_SECONDS = 0.1
_STEADY_SECONDS = 1.0
_SHOWN_HOLDERS = 5


@dataclass(slots=True)
class Footprint:
    """What is known of one worker's device memory.

    Attributes:
        before: the devices as they were before its launch; none where there is no GPU.
        listed: ids of its processes that NVML has shown while they lived. None in most containers.
    """

    before: tuple[Device, ...] = ()
    listed: set[int] = field(default_factory=set)

    def look(self, pids: Collection[int]) -> None:
        """Notes which of the worker's living processes NVML shows now. For a thread."""
        if self.before:
            self.listed |= {holder.pid for holder in holders()}.intersection(pids)


async def wait_memory_back(
    footprint: Footprint, timeout_seconds: float, wanted_bytes: Callable[[], int | None]
) -> bool:
    """Waits until an ended worker's GPU memory is free again.

    Args:
        footprint: the worker's.
        timeout_seconds: how long to wait at most.
        wanted_bytes: what the next worker needs at this moment; None if there is no next one.

    Returns:
        Whether it is back: NVML listed its processes and does so no more, or on every device no more
        than 256 MiB are used beyond what was before, or what is free covers the next worker's need and
        grows no more. Without a GPU it is, at once.
    """
    if not footprint.before:
        return True
    steady = _Steady()
    with anyio.move_on_after(timeout_seconds):
        while True:
            if await anyio.to_thread.run_sync(_left_the_list, footprint.listed):
                return True
            now = await anyio.to_thread.run_sync(devices)
            if _as_before(footprint.before, now):
                return True
            free_bytes, wanted = steady.free_bytes(now, anyio.current_time()), wanted_bytes()
            if free_bytes is not None and wanted is not None and free_bytes >= wanted:
                return True
            await anyio.sleep(_POLL_SECONDS)
    return False


def _left_the_list(pids: Collection[int]) -> bool:
    return bool(pids) and not any(holder.pid in pids for holder in holders())


def _as_before(before: Collection[Device], now: Collection[Device]) -> bool:
    """A device that has vanished counts: nobody can wait for its memory."""
    used_bytes = {device.uuid: device.used_bytes for device in now}
    return all(used_bytes.get(old.uuid, 0) <= old.used_bytes + _RETURNED_WITHIN_BYTES for old in before)


class _Steady:
    """Tells what is free once it grows no more.

    A process that ends gives its memory back bit by bit, and vLLM takes a share of what is free when it
    looks: launched in the middle of it, it would be content with a small KV cache for ever.
    """

    def __init__(self) -> None:
        self._most_bytes = -1
        self._since = 0.0

    def free_bytes(self, now: Collection[Device], at: float) -> int | None:
        """On all devices together; None while it grows."""
        free_bytes = sum(device.free_bytes for device in now)
        if free_bytes > self._most_bytes:
            self._most_bytes, self._since = free_bytes, at
        return free_bytes if at - self._since >= _STEADY_SECONDS else None


def refuse_shortage(model_id: str, need_bytes: int, visible: Sequence[Device]) -> None:
    """Checks before a launch that the memory which is free now can hold the model. For a thread.

    Args:
        model_id: the model.
        need_bytes: what it needs at least.
        visible: the devices that its worker may use; none where there is no GPU, and nothing is checked.

    Raises:
        LoadFailed: with who holds how much. It says so at once, and better than an engine after a minute.
    """
    free_bytes = sum(device.free_bytes for device in visible)
    if not visible or need_bytes <= free_bytes:
        return
    total_bytes = sum(device.total_bytes for device in visible)
    raise LoadFailed(
        f"The model {model_id!r} could not be loaded: it needs {in_gib(need_bytes)} of GPU memory, and "
        f"{in_gib(free_bytes)} of {in_gib(total_bytes)} are free. {held_by()} "
        "Free some, or set fit: off for this model if it needs less."
    )


def held_by() -> str:
    """A sentence that names those who hold GPU memory. For a thread."""
    shown = [holder.in_words() for holder in holders()[:_SHOWN_HOLDERS]]
    if not shown:
        return "The driver does not tell who holds the rest."
    return f"It is held by {', '.join(shown)}."
