"""A nanny that somebody else has forked is watched, killed and reaped all the same."""

from __future__ import annotations

import os

import anyio
import psutil
import pytest

from local_llm.worker.nanny_process import ForkedNanny


def child(*argv: str, stdin: int | None = None) -> int:
    """A child of this process that asyncio does not know."""
    redirected = [] if stdin is None else [(os.POSIX_SPAWN_DUP2, stdin, 0)]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=redirected)


def wait_dead(pid: int) -> None:
    """Until it is a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def reap(pid: int) -> None:
    """As init does with whatever it finds."""
    os.waitpid(pid, 0)


async def test_its_end_is_noticed() -> None:
    """Everybody who waits is told, and no zombie is left."""
    reader, writer = os.pipe()
    pid = child("cat", stdin=reader)
    os.close(reader)
    nanny = ForkedNanny(pid)
    told: list[int] = []

    async def wait() -> None:
        await nanny.wait()
        told.append(nanny.pid)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert (told, nanny.ended) == ([], False)
            os.close(writer)
    assert (told, nanny.ended) == ([pid, pid], True)
    assert not psutil.pid_exists(pid)


async def test_killed() -> None:
    """SIGKILL ends it; to kill it once more harms nobody."""
    nanny = ForkedNanny(child("sleep", "3600"))
    nanny.kill()
    with anyio.fail_after(30):
        await nanny.wait()
    assert not psutil.pid_exists(nanny.pid)
    nanny.kill()


@pytest.mark.parametrize("reaped_by_others", [False, True])
async def test_ended_before_anybody_looks(reaped_by_others: bool) -> None:
    """It may be dead before it is watched, and reaped by others before the loop looks."""
    pid = child("true")
    wait_dead(pid)
    nanny = ForkedNanny(pid)
    if reaped_by_others:
        reap(pid)
    nanny.kill()
    with anyio.fail_after(30):
        await nanny.wait()
    assert not psutil.pid_exists(pid)


async def test_no_such_process() -> None:
    """One that is gone already cannot be watched, which is said."""
    pid = child("true")
    reap(pid)
    with pytest.raises(ProcessLookupError):
        ForkedNanny(pid)
