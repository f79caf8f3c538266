"""What the service does in its container, in the order of the story: each step goes on from the last."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.image.engine import SERVICE, Compose, Failed, call, expect, step

CHAT, EMBEDDING, RERANKER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "MiniLM-reranker-demo"
ANSWER = "The capital of France is Paris."
NEAREST = "Paris is the capital of France."
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]

USER = 10001
TOO_LITTLE_MEMORY = "1500m"
"""Enough for the server and an embedding model; vLLM's three processes need twice as much."""

STOP_GRACE_SECONDS = 75.0
ANSWER_SECONDS = 300.0


def tell(compose: Compose, models: Path, figures: dict[str, float]) -> None:
    """The whole story.

    Args:
        compose: the project, its images built.
        models: the demonstration models, in a folder that the test may change.
        figures: gets what was measured.
    """
    start(compose, figures)
    confined(compose)
    called_from_another_container(compose)
    stopped_while_it_answers(compose)
    with step("started again, healthy"):
        compose("up", "--detach", "--wait", "--no-build", SERVICE)
    added_model(compose, models)
    killed(compose)
    if not compose.gpu:  # with CUDA the embedding model would not fit either
        out_of_memory(compose)


def start(compose: Compose, figures: dict[str, float]) -> None:
    """From nothing to the first answer, then until the engine calls it healthy."""
    with step("start to the first answer of /health", figures):
        compose("up", "--detach", "--no-build", SERVICE)
        await_that("/health answers", lambda: ask(compose, "GET", "/health")[0] == 200)
    with step("healthy, as the engine sees it"):
        compose("up", "--detach", "--wait", "--no-build", SERVICE)


def confined(compose: Compose) -> None:
    """No root, nothing to write on but its caches, no privileges, no compiler, no model in the image."""
    with step("confined: user, privileges, read-only root and models"):
        host = compose.inspect()["HostConfig"]
        expect(host["ReadonlyRootfs"], "the root file system can be written on")
        expect(compose.inside("id", "-u").stdout.strip() == str(USER), "it does not run as its own user")
        status = compose.inside("cat", "/proc/1/status").stdout
        for wanted in (r"Uid:\s+10001\s", r"CapEff:\s+0+$", r"CapBnd:\s+0+$", r"NoNewPrivs:\s+1$"):
            expect(re.search(wanted, status, re.MULTILINE), f"/proc/1/status has no {wanted}:\n{status}")
        for path in ("/models/new", f"/models/{CHAT}/new", "/opt/new", "/new"):
            written = compose.inside("touch", path)
            expect(written.returncode != 0, f"{path} could be written")
            expect("Read-only file system" in written.stdout, written.stdout)
        for path in ("/cache/new", "/tmp/new"):
            expect(compose.inside("sh", "-c", f"touch {path} && rm {path}").returncode == 0, path)
    with step("slim: no compiler, no model"):
        if not compose.gpu:  # Triton compiles with the base image's
            found = compose.inside("sh", "-c", "command -v cc gcc c++ g++ clang nvcc").stdout
            expect(not found.strip(), f"compilers in the image: {found}")
        # Larger than what some packages bring as tables.
        names = ("(", "-name", "*.safetensors", "-o", "-name", "*.gguf", "-o", "-name", "*.bin", ")")
        image = ("--entrypoint", "find", compose.settings["IMAGE"], "/", "-xdev", "-size", "+20M", *names)
        found = call("docker", "run", "--rm", *image, "-printf", "found %p\\n", check=False).stdout
        expect("found /" not in found, f"models in the image: {found}")


def called_from_another_container(compose: Compose) -> None:
    """The example client, by the service's name: two starts of vLLM, one of each transformers worker."""
    with step("a client's container: models, chat, embedding, rerank, switch back, stream"):
        told = compose("run", "--rm", "-T", "client")
    for name, kind in ((CHAT, "chat"), (EMBEDDING, "embedding"), (RERANKER, "reranker")):
        expect(f"{name} ({kind})" in told, told)
    for line in (
        f"chat: {ANSWER}",
        f"embedding: {NEAREST}",
        f"rerank: {NEAREST}",
        f"chat again: {ANSWER}",
        f"stream: {ANSWER} (",
    ):
        expect(line in told, f"not told: {line}\n{told}")
    pieces = re.search(r"\((\d+) pieces\)", told)
    expect(pieces and int(pieces[1]) > 3, f"the stream came in one piece:\n{told}")


def stopped_while_it_answers(compose: Compose) -> None:
    """SIGTERM: the running answer is finished, then everything ends, within the grace."""
    container = compose.container()
    with step("SIGTERM: drained, ended in time, nothing left"):
        answers: list[tuple[int, Any]] = []
        request = {"model": CHAT, "messages": QUESTION, "max_tokens": 150, "ignore_eos": True}
        client = threading.Thread(
            target=lambda: answers.append(ask(compose, "POST", "/v1/chat/completions", request))
        )
        client.start()
        await_that("the answer runs", lambda: running_requests(compose) == 1)
        started = time.monotonic()
        compose("stop", SERVICE)
        seconds = time.monotonic() - started
        client.join(ANSWER_SECONDS)
        expect(seconds < STOP_GRACE_SECONDS, f"it took {seconds:.0f} s, and was killed")
        state = compose.inspect()["State"]
        expect(state["ExitCode"] in (0, 143), f"exit code {state['ExitCode']}")
        expect(answers and answers[0][0] == 200, f"the running answer was not finished: {answers}")
        expect(answers[0][1]["usage"]["completion_tokens"] == 150, f"it was cut: {answers}")
        expect(not processes_of(container), f"left behind: {processes_of(container)}")


def added_model(compose: Compose, models: Path) -> None:
    """A folder copied into the mount while the service runs."""
    with step("a model folder added to the mount is served without a restart"):
        before = compose.inspect()["State"]["StartedAt"]
        shutil.copytree(models / EMBEDDING, models / ".added-later")
        (models / ".added-later").rename(models / "added-later")
        embed(compose, "added-later")
        expect(compose.inspect()["State"]["StartedAt"] == before, "it was restarted")


def killed(compose: Compose) -> None:
    """SIGKILL to the main process, with a worker loaded."""
    with step("kill -9 of the main process: restarts and serves"):
        container, before = compose.container(), compose.inspect()["RestartCount"]
        sent = compose.inside("sh", "-c", f"kill -9 {main_process(compose)}")
        expect(sent.returncode == 0, f"no signal was sent: {sent.stdout}")
        await_that("it is restarted", lambda: compose.inspect()["RestartCount"] == before + 1)
        await_that("/health answers", lambda: ask(compose, "GET", "/health")[0] == 200)
        embed(compose, EMBEDDING)
        expect(compose.container() == container, "it is another container")


def out_of_memory(compose: Compose) -> None:
    """In a container that is too small for vLLM the kernel kills the worker, and nobody else."""
    with step(f"a worker beyond the memory limit ({TOO_LITTLE_MEMORY}): killed, and told; the server lives"):
        small = Compose(compose.checkout, {**compose.settings, "MEMORY_LIMIT": TOO_LITTLE_MEMORY})
        small("up", "--detach", "--wait", "--no-build", SERVICE)
        server = main_process(small)
        status, answer = ask(small, "POST", "/v1/chat/completions", {"model": CHAT, "messages": QUESTION})
        expect(status == 503, f"{status}: {answer}")
        error = answer["error"]
        expect(error["code"] == "model_load_failed" and error["type"], f"not OpenAI's shape: {answer}")
        expect("out of memory, as the kernel has it" in error["message"], f"not told: {error['message']}")
        expect(main_process(small) == server, "the server was killed too")
        expect(small.inspect()["RestartCount"] == 0, "the container was restarted")
        embed(small, EMBEDDING)


def embed(compose: Compose, model: str) -> None:
    """One embedding, or `Failed`."""
    status, answer = ask(compose, "POST", "/v1/embeddings", {"model": model, "input": "Paris"})
    expect(status == 200, f"{model}: {status}: {answer}")
    expect(len(answer["data"][0]["embedding"]) == 384, f"{model}: no embedding: {answer}")


def ask(compose: Compose, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of one request to the published port; 0 and the reason while nobody answers."""
    request = urllib.request.Request(
        compose.url() + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError as problem:  # refused, or reset by the engine's proxy while nobody listens behind it
        return 0, str(problem)


def await_that(what: str, true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Looks until it is true.

    Raises:
        Failed: it is not, for so long.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def running_requests(compose: Compose) -> int:
    """How many requests the workers have, as the service's own command shows it."""
    shown = compose.inside("local-llm", "status", "--json").stdout
    return sum(worker["leases"] for worker in json.loads(shown)["workers"])


def main_process(compose: Compose) -> int:
    """The server's process id in the container: the child of its init."""
    shown = compose.inside("sh", "-c", "grep -lx 'PPid:.1' /proc/[0-9]*/status").stdout
    found = [int(line.split("/")[2]) for line in shown.splitlines()]
    expect(len(found) == 1, f"children of the init: {shown}")
    return found[0]


def processes_of(container: str) -> list[str]:
    """Processes on this machine that belong to a container; those of a remote engine are not seen."""
    found = []
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if container in cgroup.read_text():
                found.append((cgroup.parent / "comm").read_text().strip())
        except OSError:  # it has ended meanwhile
            continue
    return found
