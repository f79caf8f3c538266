"""A switch between two models on one GPU, with the whole server and the real binding of NVML.

Each story: a worker for `a` is ready, a request for `b` ends it, and then the memory does something.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.fake_engine import write_fake_model
from tests.nvml_stand_in import GPU, Held, Lost, StandIn
from tests.serving import Served
from tests.supervisor.server.stage import CHAT, asking, running, until


@dataclass
class Switch:
    """The moment when a's worker is gone and b is waited for."""

    served: Served
    gpus: StandIn
    answers: list[httpx.Response] = field(default_factory=list)

    def b_is_loading(self) -> bool:
        """Whether b's worker has been launched."""
        return any(
            entry["message"] == "worker loading" and entry["model"] == "b" for entry in self.served.log
        )

    def answer(self) -> httpx.Response:
        """The one to b's request; waits for it."""
        until(lambda: bool(self.answers))
        return self.answers[0]


@contextmanager
def switch(
    tmp_path: Path,
    loaded: Callable[[int], list[GPU | Held]],
    memory_back_seconds: float,
    before: GPU = GPU(used_gib=2),  # noqa: B008 - frozen
) -> Iterator[Switch]:
    """Serves, loads a, and asks for b; what NVML says while a runs is `loaded(pid)`."""
    gpus = StandIn(tmp_path)
    gpus.write(before)
    for model in ("a", "b"):
        write_fake_model(tmp_path / "models", model, slow_start=1.5 if model == "a" else 0)
    stop = {"memory_back_seconds": memory_back_seconds}
    with running(tmp_path, gpus.environment, stop=stop) as served, served.client() as client:
        moment = Switch(served, gpus)

        def ask(model: str) -> None:
            moment.answers.append(client.post(CHAT, json=asking(model)))

        first = threading.Thread(target=ask, args=("a",))
        first.start()
        # "its program runs as process 4711"
        pid = int(served.wait_for_log("worker loading", model="a")["reason"].rpartition(" ")[2])
        gpus.write(*loaded(pid))
        first.join()
        assert moment.answers.pop().headers["x-fake-pid"] == str(pid)
        second = threading.Thread(target=ask, args=("b",))
        second.start()
        try:
            served.wait_for_log("worker gone", model="a")
            yield moment
        finally:
            second.join()


def test_gone_from_the_list(tmp_path: Path) -> None:
    """As long as NVML lists a's process, b waits; another program's memory does not matter."""
    with switch(tmp_path, lambda pid: [GPU(20), Held(pid, 18)], memory_back_seconds=600) as moment:
        assert not moment.b_is_loading()
        moment.gpus.write(GPU(used_gib=23))
        assert moment.answer().status_code == 200


def test_hidden_as_in_a_container(tmp_path: Path) -> None:
    """NVML shows no process. Memory within 256 MiB of what it was before is proof."""
    with switch(tmp_path, lambda _pid: [GPU(23.9999999)], memory_back_seconds=600) as moment:
        assert not moment.b_is_loading()
        moment.gpus.write(GPU(used_gib=2.2))
        assert moment.answer().status_code == 200


def test_another_program_grows_meanwhile(tmp_path: Path) -> None:
    """Hidden, and never again as before: what is free covers b's need, and that is enough."""
    with switch(tmp_path, lambda _pid: [GPU(23.9999999)], memory_back_seconds=600) as moment:
        moment.gpus.write(GPU(used_gib=12))
        assert moment.answer().status_code == 200


def test_never_back_and_enough(tmp_path: Path) -> None:
    """After the deadline b is tried, if its weights fit into what is free."""
    with switch(tmp_path, lambda _pid: [GPU(23.9)], memory_back_seconds=0.5) as moment:
        assert moment.answer().status_code == 200
        warning = moment.served.wait_for_log("after 0.5 s the GPU memory of w1 is not back.")
        assert "does not tell who" in warning["message"]


def test_never_back_and_too_little(tmp_path: Path) -> None:
    """Else b's client is told who holds how much."""
    held = [GPU(24), Held(os.getpid(), 21.5)]
    with switch(tmp_path, lambda _pid: held, memory_back_seconds=0.5) as moment:
        answer = moment.answer()
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_load_failed")
        assert "0.0 GiB of 24.0 GiB are free" in error["message"]
        assert f"(process {os.getpid()}) 21.5 GiB on GPU 0" in error["message"]


def test_a_device_that_vanishes(tmp_path: Path) -> None:
    """Nobody waits for its memory."""
    with switch(tmp_path, lambda _pid: [GPU(23.9999999)], memory_back_seconds=600) as moment:
        moment.gpus.write(Lost())
        assert moment.answer().status_code == 200


def test_ends_at_once(tmp_path: Path) -> None:
    """SIGTERM while the memory is waited for: nobody needs it any more."""
    with switch(tmp_path, lambda _pid: [GPU(23.9999999)], memory_back_seconds=600) as moment:
        assert moment.served.end() == 0
        assert moment.answer().status_code == 503
