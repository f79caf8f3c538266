"""A supervisor to be killed: starts one worker of the fake engine, says what runs, and stays.

    python -m tests.supervisor.worker.mortal_supervisor FOLDER

Prints one line, the process ids of the nanny and everything below it, once the worker is ready.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from local_llm.worker.launcher import Launcher
from tests.supervisor.worker.stage import fake_card, fake_settings, tree, until


async def main(folder: Path) -> None:
    """Runs until it is killed."""
    async with Launcher(fake_settings(folder)) as launcher:
        worker = launcher.worker(fake_card(folder, leak_child=True, leak_shm=True, ignore_sigterm=True))
        await worker.start()
        await until(lambda: any(launcher._folder.path.glob("*/.shared-memory")))
        sys.stdout.write(" ".join(str(each.pid) for each in tree(worker)) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
