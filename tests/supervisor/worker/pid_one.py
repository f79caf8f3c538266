"""What happens in a container whose PID 1 is the supervisor. Run by test_pid_one.py, in a PID name space.

    unshare --pid --fork --mount-proc python -m tests.supervisor.worker.pid_one FOLDER

Starts and ends a worker that leaks a daemon, beside orphans of all sorts, and prints what is left.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import anyio
import psutil

from local_llm.worker.launcher import Launcher
from tests.supervisor.worker.stage import fake_card, fake_settings, until


async def main(folder: Path) -> None:
    """As the supervisor does it."""
    me = psutil.Process()
    async with Launcher(fake_settings(folder)) as launcher:
        worker = launcher.worker(fake_card(folder, leak_child=True))
        await worker.start()
        # One in a session of its own and, as PID 1, one in ours; the shell that starts them leaves first.
        in_ours = "sleep 0.2 &" if me.pid == 1 else ""
        await anyio.run_process(["sh", "-c", f"setsid sleep 0.2 & {in_ours}"])
        orphans = [child for child in me.children() if child.pid != worker.nanny_pid]
        await until(lambda: all(orphan.status() == psutil.STATUS_ZOMBIE for orphan in orphans))
        await launcher._strays.reap_orphans()
        only_nanny = [child.pid for child in me.children()] == [worker.nanny_pid]
        await worker.stop(reason="enough")
    sys.stdout.write(f"PID 1: {me.pid == 1}\nonly the nanny: {only_nanny and bool(orphans)}\n")
    sys.stdout.write(f"left: {me.children()}\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
