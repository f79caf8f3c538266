"""Several models behind one URL: the right one answers, one at a time, and nobody is cut off."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.fake_engine import write_fake_model
from tests.serving import Served
from tests.supervisor.server.stage import (
    CHAT,
    POLL_SECONDS,
    asking,
    engine_processes,
    health,
    loads,
    running,
    the_engine,
    until,
)

PATHS = {
    "org/one": CHAT,
    "org/two": CHAT,
    "three": CHAT,
    "embedder": "/v1/embeddings",
    "reranker": "/v1/rerank",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("switching")
    models = folder / "models"
    for name in ("org/one", "org/two", "three"):
        write_fake_model(models, name)
    write_fake_model(models, "embedder", kind="embedding")
    write_fake_model(models, "reranker", kind="reranker")
    write_fake_model(models, "streams", chunks=6, chunk_seconds=0.2)
    write_fake_model(models, "loads", slow_start=1)
    with running(folder, aliases={"gpt-4o": "org/one", "text-embedding-3-small": "embedder"}) as served:
        yield served


class Sampled:
    """How many engines were alive at the same time, looked at all the while."""

    def __init__(self, served: Served) -> None:
        self.most = 0
        self.looks = 0
        self._served = served
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(POLL_SECONDS):
            self.most = max(self.most, len(engine_processes(self._served)))
            self.looks += 1


def one_after_the_other(log: list[dict[str, str]]) -> bool:
    """Whether no worker was launched before its predecessor was gone, by the log."""
    alive = 0
    for line in log:
        if line["message"] == "worker loading":
            alive += 1
        elif line["message"] == "worker gone" and alive:
            alive -= 1
        if alive > 1:
            return False
    return True


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("org/one", "org/one"),
        ("one", "org/one"),
        ("gpt-4o", "org/one"),
        ("two", "org/two"),
        ("text-embedding-3-small", "embedder"),
    ],
)
def test_every_name_of_a_model(served: Served, name: str, model: str) -> None:
    """Id, last part, alias: the same worker, which knows itself by all of them."""
    with served.client() as client:
        answer = client.post(PATHS[model], json=asking(name, input="x"))
        assert (answer.status_code, answer.headers["x-fake-model"]) == (200, model)
    engine = the_engine(served)
    served_names = [each["id"] for each in engine.get("/v1/models", key=engine.key).json()["data"]]
    assert {model, name} <= set(served_names)


def test_each_switch_leaves_nothing_of_the_one_before(served: Served) -> None:
    """Round and round; the predecessor's process is gone before the next one answers."""
    before = None
    with served.client() as client:
        for model in [*PATHS, *PATHS]:
            answer = client.post(PATHS[model], json=asking(model))
            assert (answer.status_code, answer.headers["x-fake-model"]) == (200, model)
            (engine,) = engine_processes(served)
            assert engine != before
            before = engine


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_crowd_that_wants_everything_at_once(served: Served, seed: int) -> None:
    """Sixty requests over five models, plain and streaming: each by its own worker, in few switches."""
    dice = random.Random(seed)
    crowd = [(dice.choice(list(PATHS)), dice.random() < 0.5, dice.random() * 0.5) for _ in range(60)]
    answered: Counter[tuple[str, int, str]] = Counter()
    mark = len(served.log)

    async def one(client: httpx.AsyncClient, model: str, stream: bool, pause: float) -> None:
        await anyio.sleep(pause)
        answer = await client.post(PATHS[model], json=asking(model, stream=stream and PATHS[model] == CHAT))
        answered[model, answer.status_code, answer.headers["x-fake-model"]] += 1

    limits = httpx.Limits(max_connections=None)
    with Sampled(served) as sampled:
        async with served.async_client(limits=limits) as client, anyio.create_task_group() as tasks:
            for member in crowd:
                tasks.start_soon(one, client, *member)
    wanted = Counter(model for model, _, _ in crowd)
    assert answered == {(model, 200, model): count for model, count in wanted.items()}
    assert sampled.most == 1
    assert sampled.looks > 10
    assert one_after_the_other(served.log[mark:])
    # Each model once; once more for those that came too late for their turn.
    assert len(loads(served, mark)) <= 2 * len(PATHS)
    done = [line for line in served.log[mark:] if line["logger"] == "local_llm.access"]
    assert {line["status"] for line in done} == {200}


def test_a_running_stream_is_not_cut_by_a_switch(served: Served) -> None:
    """It ends in peace, then its worker goes, then the other model is loaded."""
    mark = len(served.log)
    other: list[httpx.Response] = []
    with served.client() as client:
        client.post(CHAT, json=asking("streams"))
        thread = threading.Thread(
            target=lambda: other.append(httpx.post(served.url + CHAT, json=asking("three"), timeout=60))
        )
        with client.stream("POST", CHAT, json=asking("streams", stream=True)) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            thread.start()
            until(lambda: health(served)["waiting"] == {"three": 1})
            text += "".join(pieces)
        assert not other
        thread.join()
    assert text.count("token") == 6
    assert text.endswith("data: [DONE]\n\n")
    assert other[0].headers["x-fake-model"] == "three"
    assert one_after_the_other(served.log[mark:])


def test_those_who_wait_are_let_in_together(served: Served) -> None:
    """One load for all of them, and all of them at once: vLLM batches them."""
    mark = len(served.log)
    answers: list[httpx.Response] = []
    body = asking("loads")
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.post(served.url + CHAT, json=body, timeout=60)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: health(served)["waiting"] == {"loads": 8})
    for thread in threads:
        thread.join()
    assert len({answer.headers["x-fake-pid"] for answer in answers}) == 1
    assert loads(served, mark) == ["loads"]


@pytest.mark.parametrize(("patience", "newcomer_first"), [(0, False), (1000, True)])
def test_patience(tmp_path: Path, patience: float, newcomer_first: bool) -> None:
    """While another model is waited for, newcomers to the active one are let in as long as it says."""
    write_fake_model(tmp_path / "models", "active", chunks=10, chunk_seconds=0.15)
    write_fake_model(tmp_path / "models", "other")
    order: list[str] = []

    def ask(served: Served, model: str) -> None:
        httpx.post(served.url + CHAT, json=asking(model), timeout=60).raise_for_status()
        order.append(model)

    with running(tmp_path, queue={"patience": patience}) as served, served.client() as client:
        client.post(CHAT, json=asking("active"))
        threads = [threading.Thread(target=ask, args=(served, model)) for model in ("other", "active")]
        with client.stream("POST", CHAT, json=asking("active", stream=True)) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            threads[0].start()
            until(lambda: health(served)["waiting"].get("other") == 1)
            threads[1].start()
            until(lambda: bool(order) or health(served)["waiting"].get("active") == 1)
            for _ in pieces:
                pass
        for thread in threads:
            thread.join()
    assert order == (["active", "other"] if newcomer_first else ["other", "active"])


def test_states_in_the_list_of_models(served: Served) -> None:
    """Idle, loading, active; everything that OpenAI has, and what a person wants to know."""
    with served.client() as client:
        client.post(CHAT, json=asking("three"))
        thread = threading.Thread(
            target=lambda: httpx.post(served.url + CHAT, json=asking("loads"), timeout=60)
        )
        states: set[tuple[str, str]] = set()

        def look() -> bool:
            states.update((each["id"], each["state"]) for each in client.get("/v1/models").json()["data"])
            return ("loads", "active") in states

        look()
        assert ("three", "active") in states
        assert {state for model, state in states if model != "three"} == {"idle"}
        thread.start()
        until(look)
        thread.join()
        assert ("loads", "loading") in states
        models = {each["id"]: each for each in client.get("/v1/models").json()["data"]}
        assert models["three"]["state"] == "idle"
        one = models["org/one"]
        assert abs(one.pop("created") - time.time()) < 3600
        assert one.pop("size_bytes") > 0
        assert one == {
            "id": "org/one",
            "object": "model",
            "owned_by": "org",
            "kind": "chat",
            "engine": "vllm",
            "state": "idle",
            "aliases": ["gpt-4o", "one"],
            "context_length": 2048,
            "max_model_len": 2048,
            "parent": None,
        }


def test_health_tells_what_goes_on(served: Served) -> None:
    """Version, active model, phases; 200 whatever is loaded."""
    with served.client() as client:
        client.post(CHAT, json=asking("three"))
        answer = client.get("/health")
    assert answer.status_code == 200
    told = answer.json()
    assert told["status"] == "ok"
    assert told["version"]
    assert told["active_model"] == "three"
    (worker,) = told["workers"]
    assert (worker["model"], worker["phase"], worker["requests"]) == ("three", "serving", 0)
    assert told["waiting"] == {}
