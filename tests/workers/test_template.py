"""The warm templates of the real engines: a worker cannot tell its fork from a start, and harms nobody."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_llm.catalog.card import Engine
from local_llm.settings import Settings
from local_llm.worker.environment import shared_environment
from local_llm.worker.launch import free_port
from local_llm.worker.strays import adopt_orphans
from tests.workers.template_stage import ROOT, Nanny, Template, cold_nanny, reap, template

pytestmark = pytest.mark.engines

PROBE = "tests.workers.start_probe"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
FORKS, SERVERS = 100, 5


@pytest.fixture(scope="module", autouse=True)
def _subreaper() -> None:
    """The nannies that a template leaves come to this process, as they come to the supervisor."""
    adopt_orphans()


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """What the supervisor gives every worker of vLLM, and the way to the probe."""
    given = shared_environment(Engine.VLLM, Settings(), (), dict(os.environ))
    return {**given, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Iterator[Template]:
    """One template for all tests of this file."""
    with template("vllm", ["LlamaForCausalLM"], tmp_path_factory.mktemp("vllm"), env) as made:
        yield made


def told_by(nanny: Nanny, env: dict[str, str], *arguments: str) -> dict[str, Any]:
    """Runs the probe."""
    nanny.launch(PROBE, *arguments, env=env)
    log = nanny.log_to_the_end()
    assert nanny.event("exited")["code"] == 0, log
    nanny.event("gone")
    told: dict[str, Any] = json.loads(log.splitlines()[-1])
    return told


def test_it_is_ready_and_untouched(vllm: Template) -> None:
    """Everything it should import is there in this vLLM; only libraries' own threads; no GPU."""
    assert vllm.ready["event"] == "ready"
    assert vllm.ready["skipped"] == []
    assert vllm.ready["threads"] <= 4
    assert 100 << 20 < vllm.ready["pss_bytes"] < 1 << 30


def hunger(pid: int) -> int:
    """How soon the kernel kills a process when memory runs out; the worker's is in what the probe tells."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_fork_is_like_a_start(vllm: Template, env: dict[str, str], tmp_path: Path) -> None:
    """Environment, arguments, descriptors, signals, session, limits, and what libraries read of it."""
    nanny = vllm.fork()
    assert hunger(nanny.pid) == hunger(os.getpid()) < hunger(vllm.process.pid)
    warm = told_by(nanny, env, "vllm")
    reap(nanny)
    with cold_nanny(tmp_path) as started:
        cold = told_by(started, env, "vllm")
    own = {name: str(tmp_path / "cold") for name in ("TMPDIR", "VLLM_RPC_BASE_PATH")}
    assert cold["basics"]["environment"].items() >= own.items()
    assert warm["basics"]["environment"].pop("VLLM_WORKER_MULTIPROC_METHOD") == "fork"
    for name in own:
        warm["basics"]["environment"][name] = own[name]
    assert warm["basics"].pop("temporary") == str(nanny.temporary)
    cold["basics"].pop("temporary")
    warm["libraries"]["vllm"]["VLLM_RPC_BASE_PATH"] = cold["libraries"]["vllm"]["VLLM_RPC_BASE_PATH"]
    assert warm["basics"] == cold["basics"]
    # A template has loaded more, and vLLM's workers are spawned with these two anyhow.
    warm_libraries, cold_libraries = warm["libraries"].pop("libraries"), cold["libraries"].pop("libraries")
    assert set(cold_libraries) <= set(warm_libraries)
    assert warm["libraries"].pop("threads") <= cold["libraries"].pop("threads") + 2
    assert warm["libraries"] == cold["libraries"]


def test_a_hundred_forks(vllm: Template, env: dict[str, str]) -> None:
    """Each is itself: no number drawn twice, nothing inherited, and the template stays as it was."""
    first_bytes, drawn = 0, set()
    for number in range(FORKS):
        nanny = vllm.fork()
        told = told_by(nanny, env)
        reap(nanny)
        assert list(told["basics"]["descriptors"])[:3] == ["0", "1", "2"]
        assert "socket" not in told["basics"]["descriptors"].values()
        drawn |= {str(each) for each in told["random"]}
        if number == FORKS // 10:
            first_bytes = vllm.proportional_bytes()
    assert len(drawn) == 4 * FORKS
    # Pages that a fork shared count for half while it lives; none lives here.
    assert vllm.proportional_bytes() < first_bytes + (8 << 20)
    assert len(os.listdir(f"/proc/{vllm.process.pid}/fd")) < 12  # noqa: PTH208


def serve(nanny: Nanny, env: dict[str, str]) -> str:
    """Starts a whole server on the demonstration model; returns its URL when it answers."""
    port = free_port()
    arguments = [str(MODEL), "--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--middleware", "local_llm_worker.key_guard.KeyGuard", "--enforce-eager"]
    nanny.launch("local_llm_worker.vllm_serve", *arguments, env=env)
    url = f"http://127.0.0.1:{port}"
    until_healthy(url)
    return url


def until_healthy(url: str) -> None:
    """Polls; the test's own time-out ends it."""
    with httpx.Client(headers={"authorization": "Bearer a-key"}) as client:
        while True:
            try:
                if client.get(f"{url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                continue


def ask(url: str) -> str:
    """The capital of France."""
    body = {
        "model": "m",
        "temperature": 0,
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    headers = {"authorization": "Bearer a-key"}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=120)
    text: str = answer.raise_for_status().json()["choices"][0]["message"]["content"]
    return text


def test_five_servers_answer_rightly(vllm: Template, env: dict[str, str]) -> None:
    """One after the other from the same template, with all of vLLM's processes forked."""
    for _ in range(SERVERS):
        nanny = vllm.fork()
        assert ask(serve(nanny, env)) == "The capital of France is Paris."
        nanny.stop()
        assert not nanny.temporary.exists()
        reap(nanny)


def lines_of(log: str) -> set[str]:
    """What vLLM's processes say until they serve, less numbers, paths, and which of them says it."""
    found = set()
    for line in log.partition("Application startup complete")[0].splitlines():
        said = re.match(
            r"\((?:APIServer|EngineCore|Worker) pid=\d+\) (\w+) \S+ \S+ \[([\w.]+):\d+\] (.*)", line
        )
        if said:
            words = re.sub(r"[\w/.-]*vllm_dist_\w+", "PATH", said[3])
            # A set, whose order is another one in each process.
            words = re.sub(r"(?<=Methods: ).*", lambda names: ", ".join(sorted(names[0].split(", "))), words)
            found.add(f"{said[1]} {said[2]} {re.sub(r'[0-9.]+', 'N', words)}")
    return found


def test_its_log_is_that_of_a_start(vllm: Template, env: dict[str, str], tmp_path: Path) -> None:
    """Whatever vLLM finds out about its machine and its model, it finds out the same."""
    nanny = vllm.fork()
    serve(nanny, env)
    nanny.stop()
    warm = lines_of(nanny.log_to_the_end())
    reap(nanny)
    with cold_nanny(tmp_path) as started:
        serve(started, env)
        started.stop()
        cold = lines_of(started.log_to_the_end())
    assert len(cold) > 30
    assert warm == cold


def test_its_death_harms_no_worker(vllm: Template, env: dict[str, str]) -> None:
    """The last test with it: a server answers before and after the template is killed."""
    nanny = vllm.fork()
    url = serve(nanny, env)
    vllm.process.send_signal(signal.SIGKILL)
    vllm.process.wait(10)
    assert ask(url) == "The capital of France is Paris."
    nanny.stop()
    reap(nanny)
