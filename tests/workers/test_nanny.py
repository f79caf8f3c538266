"""The nanny alone, over its control socket, with shell commands for workers."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from local_llm_worker.nanny import proc

ROOT = Path(__file__).parents[2]
NANNY = "local_llm_worker.nanny"


class Supervisor:
    """The other end of a nanny's control socket and log pipe."""

    def __init__(
        self, tmp_path: Path, control_fd_above: int = 0, program: tuple[str, ...] = ("-m", NANNY)
    ) -> None:
        self.temporary = tmp_path / "w1"
        self.temporary.mkdir()
        self.socket, theirs = socket.socketpair()
        with theirs as low:
            theirs = socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, control_fd_above))
        self.socket.settimeout(30)
        self.log, log_writer = os.pipe()
        descriptors = (theirs.fileno(), log_writer)
        command = [sys.executable, *program]
        command += ["--control-fd", str(descriptors[0]), "--log-fd", str(descriptors[1])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "workers")}
        self.nanny = subprocess.Popen(command, pass_fds=descriptors, env=environment, stderr=log_writer)
        theirs.close()
        os.close(log_writer)
        self.events = self.socket.makefile("rb")

    def send(self, **message: Any) -> None:
        """One message to the nanny."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def launch(self, *argv: str, cwd: str = "/", **env: str) -> None:
        """The first message."""
        env = {"PATH": os.environ["PATH"], **env}
        self.send(op="launch", argv=argv, env=env, cwd=cwd, temporary=str(self.temporary))

    def event(self, kind: str) -> dict[str, Any]:
        """The next event, which must be of this kind."""
        event: dict[str, Any] = json.loads(self.events.readline())
        assert event["event"] == kind, event
        return event

    def log_to_its_end(self) -> str:
        """All that the worker wrote; ends when nobody holds the pipe any more."""
        with os.fdopen(self.log, "rb") as file:
            return file.read().decode()

    def gone(self) -> dict[str, Any]:
        """The last event; the nanny then leaves with 0, and the folder is no more."""
        event = self.event("gone")
        assert self.events.readline() == b""
        assert self.nanny.wait(10) == 0
        assert not self.temporary.exists()
        return event

    def close(self) -> None:
        """Hangs up."""
        self.events.close()
        self.socket.close()
        self.nanny.wait(30)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A nanny that waits for its launch."""
    supervisor = Supervisor(tmp_path)
    yield supervisor
    supervisor.close()


def test_a_short_life(segments: Segments) -> None:
    """Started, exited, gone; with the given environment, folder and no input."""
    supervisor = segments.supervisor
    supervisor.launch("sh", "-c", 'echo "$GREETING from $PWD"; cat; exit 3', cwd="/usr", GREETING="hello")
    assert supervisor.event("started")["pid"] > 0
    assert supervisor.event("exited") == {"event": "exited", "code": 3, "signal": None}
    assert supervisor.gone() == {"event": "gone", "swept": [], "shm_unlinked": [], "shm_unclaimed": []}
    assert supervisor.log_to_its_end() == "hello from /usr\n"


def test_a_supervisor_with_a_thousand_connections(tmp_path: Path) -> None:
    """The descriptor that it hands down is above what `select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    try:
        supervisor = Supervisor(tmp_path, control_fd_above=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    supervisor.launch("sh", "-c", "exit 3")
    supervisor.event("started")
    assert supervisor.event("exited")["code"] == 3
    supervisor.gone()
    assert supervisor.log_to_its_end() == ""
    supervisor.events.close()
    supervisor.socket.close()


def test_the_worker_starts_clean(supervisor: Supervisor) -> None:
    """Three open files, no blocked or ignored signal, a session of its own, death with its nanny."""
    program = (
        "import ctypes, os; number = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(number));"
        "status = dict(line.split(':\\t') for line in open('/proc/self/status') if line.startswith('Sig'));"
        "own = [fd for fd in map(int, os.listdir('/proc/self/fd')) if fd > 2];"
        "theirs = 1 << 12 | 1 << 24 | 1 << 31;"
        "print(len(own), int(status['SigBlk'], 16), int(status['SigIgn'], 16) & ~theirs,"
        "os.getsid(0) == os.getpid(), number.value)"
    )
    supervisor.launch(sys.executable, "-I", "-S", "-c", program)
    supervisor.event("started")
    assert supervisor.event("exited")["code"] == 0
    supervisor.gone()
    # The one further file is the listing of the files. SIGPIPE and SIGXFSZ are ignored by Python itself;
    # signal 32 is glibc's own, and some shells hand it down ignored.
    assert supervisor.log_to_its_end() == "1 0 0 True 9\n"


def test_the_worker_is_the_first_to_go_when_memory_ends(supervisor: Supervisor) -> None:
    """The kernel's OOM killer takes the worker rather than its nanny, or the supervisor."""
    supervisor.launch("cat", "/proc/self/oom_score_adj")
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{supervisor.nanny.pid}/oom_score_adj").read_text()) == own
    supervisor.event("started")
    supervisor.event("exited")
    supervisor.gone()
    assert int(supervisor.log_to_its_end()) == max(500, own)


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["/nowhere/python"], "/", "/nowhere/python: No such file or directory"),
        (["no-such-program"], "/", "no-such-program: No such file or directory"),
        (["/etc/passwd"], "/", "/etc/passwd: Permission denied"),
        (["true"], "/nowhere", "/nowhere: No such file or directory"),
    ],
)
def test_not_started(supervisor: Supervisor, argv: list[str], cwd: str, message: str) -> None:
    """What cannot be executed is told as such."""
    supervisor.launch(*argv, cwd=cwd)
    assert supervisor.event("not_started")["message"] == message
    supervisor.gone()


def test_incomplete_launch(supervisor: Supervisor) -> None:
    """A launch without a program is refused, not guessed."""
    supervisor.send(op="launch", argv=["true"])
    assert "env" in supervisor.event("not_started")["message"]
    supervisor.event("gone")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_signal(supervisor: Supervisor, number: signal.Signals) -> None:
    """The signal is told by its number."""
    supervisor.launch("sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
    supervisor.event("started")
    assert supervisor.event("exited") == {"event": "exited", "code": None, "signal": number.value}
    supervisor.gone()


def test_stop_lets_the_worker_end_by_itself(supervisor: Supervisor) -> None:
    """SIGTERM goes to the main process, which has its grace."""
    supervisor.launch("sh", "-c", 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done')
    supervisor.event("started")
    assert os.read(supervisor.log, 10) == b"up\n"
    supervisor.send(op="stop", grace_seconds=30)
    assert supervisor.event("exited")["code"] == 0
    supervisor.gone()
    assert supervisor.log_to_its_end() == "bye\n"


def test_the_stop_signal_is_the_launches(supervisor: Supervisor) -> None:
    """Some servers end in order by SIGINT only; one that is none is no launch."""
    launch = {"op": "launch", "argv": ["sleep", "600"], "env": {"PATH": os.environ["PATH"]}, "cwd": "/"}
    supervisor.send(**launch, temporary=str(supervisor.temporary), stop_signal=int(signal.SIGINT))
    supervisor.event("started")
    supervisor.send(op="stop", grace_seconds=30)
    assert supervisor.event("exited")["signal"] == signal.SIGINT
    supervisor.gone()


def test_a_stop_signal_that_is_none(supervisor: Supervisor) -> None:
    """Refused before anything is started."""
    launch = {"op": "launch", "argv": ["true"], "env": {}, "cwd": "/", "temporary": "/nowhere"}
    supervisor.send(**launch, stop_signal=4711)
    assert "4711" in supervisor.event("not_started")["message"]
    supervisor.event("gone")


def test_a_stop_right_behind_the_launch_is_heard(supervisor: Supervisor) -> None:
    """Both lie in the socket before the nanny has begun to read (seen in chaos: it waited for a kill)."""
    launch = {"op": "launch", "argv": ["sleep", "600"], "env": {"PATH": os.environ["PATH"]}, "cwd": "/"}
    stop = {"op": "stop", "grace_seconds": 30}
    messages = [{**launch, "temporary": str(supervisor.temporary)}, stop]
    supervisor.socket.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in messages))
    supervisor.event("started")
    assert supervisor.event("exited")["signal"] == signal.SIGTERM
    supervisor.gone()


DEAF = 'trap "" TERM; echo up; while :; do sleep 0.05; done'


def test_the_earlier_end_counts(supervisor: Supervisor) -> None:
    """A second stop can shorten the grace, never lengthen it."""
    supervisor.launch("sh", "-c", DEAF)
    supervisor.event("started")
    assert os.read(supervisor.log, 10) == b"up\n"
    supervisor.send(op="stop", grace_seconds=600)
    supervisor.send(op="stop", grace_seconds=0.1)
    supervisor.send(op="stop", grace_seconds=600)
    assert supervisor.event("exited")["signal"] == signal.SIGKILL
    supervisor.gone()


@pytest.mark.parametrize("end", ["exit", "crash", "stop", "hang up"])
def test_nothing_escapes(supervisor: Supervisor, end: str) -> None:
    """Daemons with sessions of their own, stopped ones too, go however the worker ends."""
    daemons = "(setsid sh -c 'trap \"\" TERM HUP; sleep 600 & kill -STOP $!; wait' &) ; sleep 600 &"
    finish = "read line < pipe; exit 0" if end == "exit" else "wait"
    pipe = supervisor.temporary / "pipe"
    os.mkfifo(pipe)
    supervisor.launch("sh", "-c", f"{daemons} echo up; {finish}", cwd=str(supervisor.temporary))
    worker = psutil.Process(supervisor.event("started")["pid"])
    assert os.read(supervisor.log, 10) == b"up\n"
    tree = descendants_when(supervisor.nanny.pid, 4)
    if end == "exit":
        pipe.write_text("go\n")
    elif end == "crash":
        worker.kill()
    elif end == "stop":
        supervisor.send(op="stop", grace_seconds=0)
    else:
        supervisor.socket.shutdown(socket.SHUT_WR)
    supervisor.event("exited")
    swept = {each["pid"]: each["name"] for each in supervisor.gone()["swept"]}
    assert swept.keys() == {process.pid for process in tree} - {worker.pid}
    assert set(swept.values()) <= {"sh", "sleep"}
    assert not any(process.is_running() for process in tree)


def descendants_when(pid: int, count: int) -> list[psutil.Process]:
    """The descendants, once there are so many of them."""
    for _ in range(3000):
        found = psutil.Process(pid).children(recursive=True)
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_a_forking_tree_is_caught(supervisor: Supervisor) -> None:
    """What forks while it is being killed is found by the next look."""
    chain = "import os, time\nwhile os.fork() == 0 and not os.setsid() == 0:\n    time.sleep(0.002)\n"
    supervisor.launch(
        sys.executable, "-I", "-S", "-c", f"print('up', flush=True)\n{chain}import time; time.sleep(600)"
    )
    supervisor.event("started")
    assert os.read(supervisor.log, 10) == b"up\n"
    descendants_when(supervisor.nanny.pid, 10)
    supervisor.send(op="stop", grace_seconds=0)
    supervisor.event("exited")
    supervisor.gone()


ELSEWHERE = """
from local_llm_worker.nanny import life, proc
proc.SHARED_MEMORY = {folder!r}
{further}
from local_llm_worker.nanny.__main__ import main
main()
"""


@dataclass
class Segments:
    """A nanny that takes a folder of the test for /dev/shm: in that one, tests would meet one another."""

    supervisor: Supervisor
    folder: Path

    def dies_with(self, program: str, *arguments: str, **env: str) -> list[str]:
        """Runs a worker until it says that it is up, kills it; what the nanny unlinked."""
        self.supervisor.launch(sys.executable, "-I", "-S", "-c", program, *arguments, **env)
        self.supervisor.event("started")
        assert os.read(self.supervisor.log, 10) == b"up\n"
        self.supervisor.send(op="stop", grace_seconds=0)
        self.supervisor.event("exited")
        unlinked: list[str] = self.supervisor.gone()["shm_unlinked"]
        return unlinked


@contextmanager
def nanny_of(tmp_path: Path, further: str = "") -> Iterator[Segments]:
    """One with its own folder of segments, and some more of it changed."""
    # Of the kind of /dev/shm: elsewhere (overlayfs, btrfs) maps name another device than stat.
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="fake-engine-segments-") as folder:
        program = ELSEWHERE.format(folder=folder, further=further)
        made = Supervisor(tmp_path, program=("-c", program))
        yield Segments(made, Path(folder))
        made.close()


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Segments]:
    with nanny_of(tmp_path) as made:
        yield made


MAPPED = """
import mmap, os, sys, time
file = open(sys.argv[1], "x+b")
file.truncate(4096)
mapped = mmap.mmap(file.fileno(), 4096)
file.close()
print("up", flush=True)
time.sleep(600)
"""

SEMAPHORE = """
import mmap, os, sys, time
made = sys.argv[1] + "-made"
file = open(made, "x+b")
file.truncate(32)
mapped = mmap.mmap(file.fileno(), 32)
file.close()
os.link(made, sys.argv[1])
os.unlink(made)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("program", [MAPPED, SEMAPHORE])
def test_shared_memory_is_unlinked(segments: Segments, program: str) -> None:
    """A segment that a SIGKILLed tree left goes; one that was there before it stays."""
    (segments.folder / "older").touch()
    assert segments.dies_with(program, str(segments.folder / "left")) == ["left"]
    assert [each.name for each in segments.folder.iterdir()] == ["older"]


def test_a_name_proves_nothing(segments: Segments) -> None:
    """A file that bears a worker's process id in its name may be anybody's; here it is the test's."""
    supervisor = segments.supervisor
    supervisor.launch("sh", "-c", "echo up; exec sleep 600")
    worker = supervisor.event("started")["pid"]
    assert os.read(supervisor.log, 10) == b"up\n"
    theirs = segments.folder / f"sem.loky-{worker}-x"
    theirs.touch()
    supervisor.send(op="stop", grace_seconds=0)
    supervisor.event("exited")
    assert supervisor.gone()["shm_unlinked"] == []
    assert theirs.exists()


NEVER_LOOKS = "life._LOOK_AT_LEAST_SECONDS = life._LOOK_AT_MOST_SECONDS = 3600"

DIES_ONCE_NOTED = """
import os, signal, sys, time
time.sleep(0.2)  # past the look at its birth
kept = open(sys.argv[1], "w")
while not os.path.exists(os.environ["NOTES"]):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_segments_are_noted_when_they_are_made(tmp_path: Path) -> None:
    """The kernel tells the nanny of each, so that there is no need to wait for its next look."""
    with nanny_of(tmp_path, NEVER_LOOKS) as segments:
        supervisor = segments.supervisor
        notes = str(supervisor.temporary / ".shared-memory")
        left = str(segments.folder / "noted")
        supervisor.launch(sys.executable, "-I", "-S", "-c", DIES_ONCE_NOTED, left, NOTES=notes)
        supervisor.event("started")
        assert supervisor.event("exited")["signal"] == signal.SIGKILL
        assert supervisor.gone()["shm_unlinked"] == ["noted"]


DIES_AT_ONCE = """
import os, signal, sys
kept = open(sys.argv[1], "w")
os.kill(os.getpid(), signal.SIGKILL)
"""


DEAF_AND_BLIND = f"{NEVER_LOOKS}\nlife.NewSegments.sources = []"


def test_what_was_made_in_the_last_moment(tmp_path: Path) -> None:
    """By a worker that was killed before anybody could look at it: it may be anybody's, and is reported."""
    with nanny_of(tmp_path, DEAF_AND_BLIND) as segments:
        supervisor = segments.supervisor
        program = f"import time; time.sleep(0.3)\n{DIES_AT_ONCE}"  # past the look at its birth
        supervisor.launch(sys.executable, "-I", "-S", "-c", program, str(segments.folder / "last"))
        supervisor.event("started")
        supervisor.event("exited")
        gone = supervisor.gone()
        assert (gone["shm_unlinked"], gone["shm_unclaimed"]) == ([], ["last"])


COPIES = 12


def test_other_programs_files_stay(segments: Segments) -> None:
    """Copied there in a worker's last second, held by nobody; each was deleted once."""
    supervisor = segments.supervisor
    supervisor.launch("sh", "-c", "echo up; exec sleep 600")
    supervisor.event("started")
    assert os.read(supervisor.log, 10) == b"up\n"
    for number in range(COPIES):
        (segments.folder / f"theirs-{number}").write_bytes(b"precious")
    psutil.Process(supervisor.nanny.pid).children()[0].kill()
    supervisor.event("exited")
    supervisor.gone()
    assert len(list(segments.folder.iterdir())) == COPIES


MAKES_WITHOUT_PAUSE = """
import multiprocessing, os, sys, time
from multiprocessing import shared_memory
def make():
    kept = []
    while True:
        kept.append(shared_memory.SharedMemory(create=True, size=4096))
        kept.append(multiprocessing.Semaphore())
        if len(kept) > 60:
            kept[0].close(); kept[0].unlink(); del kept[:2]
if __name__ == "__main__":
    for _ in range(2):
        multiprocessing.get_context("fork").Process(target=make).start()
    make_one = shared_memory.SharedMemory(create=True, size=4096)
    print("up", flush=True)
    make()
"""


@pytest.mark.parametrize("end", ["stop", "crash", "hang up"])
def test_a_tree_that_makes_segments_without_pause(tmp_path: Path, end: str) -> None:
    """Stopped, looked at, killed; the resource tracker unlinks what nobody could see. Nothing stays."""
    before = {each.name for each in Path("/dev/shm").iterdir()}
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        supervisor = Supervisor(tmp_path / str(number))
        supervisor.launch(sys.executable, "-I", "-c", MAKES_WITHOUT_PAUSE)
        worker = supervisor.event("started")["pid"]
        assert os.read(supervisor.log, 3) == b"up\n"
        holds = held_names(supervisor.nanny.pid)
        assert holds
        if end == "stop":
            supervisor.send(op="stop", grace_seconds=0)
        elif end == "crash":
            os.kill(worker, signal.SIGKILL)
        else:
            supervisor.socket.shutdown(socket.SHUT_WR)
        supervisor.event("exited")
        supervisor.gone()
        supervisor.events.close()
        supervisor.socket.close()
        os.close(supervisor.log)
        left = {each.name for each in Path("/dev/shm").iterdir()} - before
        assert not {each for each in left if each.startswith(("psm_", "sem.mp-"))} & holds


def held_names(nanny: int) -> set[str]:
    """Of what the worker's processes hold now under /dev/shm."""
    held = {each for process in proc.descendants(nanny) for each in proc.held_segments(process.pid)}
    return {name for name, each in proc.segments().items() if each in held}


DIES_BESIDE_ANOTHER = """
import os, signal, sys
while not os.path.exists(sys.argv[1]):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("program", [MAPPED, SEMAPHORE])
def test_what_others_hold_stays(segments: Segments, program: str) -> None:
    """Another server's, made in the same moment: a semaphore of its is mapped under another name."""
    supervisor, others = segments.supervisor, segments.folder / "others"
    supervisor.launch(sys.executable, "-I", "-S", "-c", DIES_BESIDE_ANOTHER, str(others))
    supervisor.event("started")
    command = [sys.executable, "-I", "-S", "-c", program, str(others)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as stranger:
        supervisor.event("exited")
        gone = supervisor.gone()
        assert (gone["shm_unlinked"], gone["shm_unclaimed"]) == ([], [])
        assert others.exists()
        stranger.kill()


def test_processes_are_noted(supervisor: Supervisor) -> None:
    """For the next start, should both nanny and supervisor be killed: boot, process id, start."""
    supervisor.launch("sh", "-c", "sleep 600 & sleep 600 & wait")
    supervisor.event("started")
    below = descendants_when(supervisor.nanny.pid, 3)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ticks = {each.pid: each.start_ticks for each in proc.descendants(supervisor.nanny.pid)}
    expected = {f"{boot} {each.pid} {ticks[each.pid]}" for each in below}
    notes = supervisor.temporary / ".processes"
    deadline = time.monotonic() + 30
    noted: set[str] = set()
    while not expected <= noted and time.monotonic() < deadline:
        noted = set(notes.read_text().splitlines()) if notes.exists() else set()
        time.sleep(0.05)
    assert expected <= noted
    supervisor.send(op="stop", grace_seconds=0)
    supervisor.event("exited")
    supervisor.gone()


def test_bad_messages_are_survived(supervisor: Supervisor) -> None:
    """Whatever the supervisor writes, the nanny goes on."""
    supervisor.launch("sh", "-c", DEAF)
    supervisor.event("started")
    for bad in (
        b"\xff\x00\n",
        b"[]\n",
        b"{}\n",
        b'{"op": "stop"}\n',
        b'{"op": "stop", "grace_seconds": "x"}\n',
    ):
        supervisor.socket.sendall(bad)
        supervisor.event("trouble")
    supervisor.send(op="stop", grace_seconds=0)
    supervisor.event("exited")
    supervisor.gone()


def test_full_log_pipe(supervisor: Supervisor) -> None:
    """A worker blocked on a log that nobody reads can be stopped, and does not block its nanny."""
    supervisor.launch("sh", "-c", "yes")
    supervisor.event("started")
    psutil.Process(supervisor.nanny.pid).children()
    supervisor.send(op="stop", grace_seconds=30)
    assert supervisor.event("exited")["signal"] == signal.SIGTERM
    supervisor.gone()


def test_supervisor_leaves_before_the_launch(supervisor: Supervisor) -> None:
    """Nothing was asked for, nothing happens."""
    supervisor.socket.shutdown(socket.SHUT_RDWR)
    assert supervisor.nanny.wait(30) == 0


def test_start_by_fork(tmp_path: Path) -> None:
    """A warm template calls the same code in a child of its own, with a callable for a program."""
    program = """
import os, socket, sys
from local_llm_worker.nanny.life import run
def serve(launch):
    print(launch.argv, os.getppid() == nanny, flush=True)
    os._exit(5)
nanny = os.getpid()
run(socket.socket(fileno=int(sys.argv[1])), 2, serve)
"""
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workers")}
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stderr=subprocess.PIPE,
        ) as nanny,
    ):
        theirs.close()
        launch = {"op": "launch", "argv": ["m"], "env": {}, "cwd": "/", "temporary": str(tmp_path / "w1")}
        ours.sendall(json.dumps(launch).encode() + b"\n")
        with ours.makefile("rb") as lines:
            events = [json.loads(line) for line in lines]
        assert nanny.stderr is not None
        assert nanny.stderr.read() == b"['m'] True\n"
    assert [each["event"] for each in events] == ["started", "exited", "gone"]
    assert events[1]["code"] == 5


@pytest.mark.parametrize("name", ["plain", "a) (b", ")"])
def test_odd_process_names(name: str, tmp_path: Path) -> None:
    """A process chooses its own name, and cannot confuse the look at /proc with it."""
    program = f"open('/proc/self/comm', 'w').write({name!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = [each for each in proc.descendants(os.getpid()) if each.pid == process.pid]
        assert [(each.name, each.parent) for each in found] == [(name, os.getpid())]
        process.communicate(b"\n")
