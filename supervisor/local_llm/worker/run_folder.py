"""The run's folder for temporary files, and what the folders of dead runs prove to be theirs.

``TMPDIR/local-llm-run-UID/RUN/WORKER/``: the first is shared by all runs of a user, and checked before it is
used; a run's own has a lock file that says who made it, and is held while that supervisor lives. Nothing
else is ever removed, whatever its name, and nothing through a link.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from local_llm.worker.noted_processes import boot_id, end_noted, start_ticks
from local_llm.worker.shared_memory import clean_after

logger = logging.getLogger(__name__)

BASE_PREFIX = "local-llm-run-"

_LOCK = "supervisor.lock"
_MAGIC = "This folder belongs to a run of local-llm-interface, which removes it.\n"
_LARGEST_LOCK_BYTES = 4096

# A Unix socket's path has at most 107 bytes. Below the base come a run, a worker, and vLLM's UUID.
_LONGEST_BASE_BYTES = 107 - len("/r-abcdefgh") - len("/w12345") - len("/" + "x" * 36)
_TRIES = 20


class RunFolder:
    """A folder for this run, locked while the supervisor lives; entered and left with `with`.

    Raises:
        OSError: there is no place for it.
    """

    def __init__(self) -> None:
        self._base = Base.of_this_user() or Base.fresh()
        self.path, self._lock = _made_in(self._base)

    def __enter__(self) -> RunFolder:
        self._base.remove_dead_runs()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _remove_run(self.path)
        os.close(self._lock)
        self._base.close()

    def make(self, worker_id: str) -> Path:
        """A new empty folder for one worker."""
        folder = self.path / worker_id
        folder.mkdir(mode=0o700)
        return folder


class Base:
    """The folder that holds the runs of one user, open.

    Args:
        path: where it lies.
        descriptor: of it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def of_this_user(cls) -> Base | None:
        """The usual one; None, with a line in the log, if what bears its name is not ours alone."""
        path = _short_place() / f"{BASE_PREFIX}{os.geteuid()}"
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as problem:
            logger.warning("%s is not used for temporary files: %s", path, problem.strerror)
            return None
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and not status.st_mode & 0o077:
            return cls(path, descriptor)
        os.close(descriptor)
        logger.warning(
            "%s is not used for temporary files: user %d owns it, mode %o",
            path,
            status.st_uid,
            stat.S_IMODE(status.st_mode),
        )
        return None

    @classmethod
    def fresh(cls) -> Base:
        """One that nobody else can have made, for this run alone."""
        path = Path(tempfile.mkdtemp(prefix=f"{BASE_PREFIX}{os.geteuid()}-", dir=_short_place()))
        return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def remove_dead_runs(self) -> None:
        """Ends and removes what supervisors left that live no more."""
        # By way of the descriptor, so that it is this folder whatever becomes of its name.
        for run in Path(f"/proc/self/fd/{self._descriptor}").iterdir():
            try:
                _remove_if_dead(run, shown=self.path / run.name)
            except OSError as problem:  # noqa: PERF203 - there are few
                logger.warning("%s, of a dead run, cannot be removed: %s", self.path / run.name, problem)

    def close(self) -> None:
        """Leaves no empty folder behind, unless other runs have theirs in it."""
        with suppress(OSError):
            self.path.rmdir()
        os.close(self._descriptor)


def _made_in(base: Base) -> tuple[Path, int]:
    """A run's folder and the descriptor that holds its lock.

    Locked before the lock says whose it is: another supervisor that starts now must not find it free.
    """
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):  # the last run of another supervisor took the base with it
            base.path.mkdir(mode=0o700, exist_ok=True)
            path = Path(tempfile.mkdtemp(prefix="r-", dir=base.path))
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            lock = os.open(path / _LOCK, flags, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            made_by = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()), "boot_id": boot_id()}
            os.write(lock, (_MAGIC + json.dumps(made_by) + "\n").encode())
            return path, lock
    raise FileNotFoundError(f"{base.path} is removed again and again")


def _remove_if_dead(run: Path, *, shown: Path) -> None:
    """Removes a run's folder if its lock proves that this program made it, and nobody holds that lock."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(os.lstat(run).st_mode):
            return
        lock = _opened_lock(run)
        if lock is None:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # its supervisor lives, or another one is removing it
        else:
            logger.info("removing what a dead supervisor left: %s", shown)
            for worker in _folders_in(run):
                end_noted(worker)
                clean_after(worker)
            _remove_run(run)
        finally:
            os.close(lock)


def _opened_lock(run: Path) -> int | None:
    """The lock file of a run, open; None if that is no file of ours, or not one with our words in it."""
    try:
        lock = os.open(run / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(lock)
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if ours and os.pread(lock, _LARGEST_LOCK_BYTES, 0).startswith(_MAGIC.encode()):
        return lock
    os.close(lock)
    return None


def _folders_in(run: Path) -> Iterator[Path]:
    for entry in os.scandir(run):
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _remove_run(run: Path) -> None:
    """The lock last: should the rest not go, the next start knows whose it is and tries again."""
    left: list[str] = []

    def note(_function: Callable[..., object], path: str, _info: object) -> None:
        left.append(path)

    with suppress(FileNotFoundError):
        for entry in list(os.scandir(run)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, onerror=note)
            elif entry.name != _LOCK:
                with suppress(FileNotFoundError):
                    os.unlink(entry.path)  # noqa: PTH108 - an entry's path
        left = [each for each in left if os.path.lexists(each)]
        if left:
            logger.warning("%d files of a run cannot be removed, %s for one", len(left), left[0])
            return
        with suppress(FileNotFoundError):
            (run / _LOCK).unlink()
        run.rmdir()


def _short_place() -> Path:
    """The usual folder for temporary files, unless its path is too long for sockets below it."""
    place = tempfile.gettempdir()
    longest = _LONGEST_BASE_BYTES - len(f"/{BASE_PREFIX}{os.geteuid()}-abcdefgh")
    return Path(place if len(os.fsencode(place)) <= longest else "/tmp")  # noqa: S108
