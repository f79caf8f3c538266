"""The whole story with real engines, in the order in which it is told: each test goes on from the last.

chat -> embed -> rerank -> chat -> other chat, through the clients that people use.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.end_to_end.conftest import TINY
from tests.end_to_end.worker_access import metric, nannies, the_worker, words, worker_processes
from tests.serving import Served

pytestmark = pytest.mark.engines

CHAT, EMBEDDING, RERANKER = "SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "MiniLM-reranker-demo"
QUESTION = "What is the capital of France?"
CAPITAL: Any = [{"role": "user", "content": QUESTION}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", timeout=600, max_retries=0)


class Predecessor:
    """All of a worker's processes and shared memory, to be found gone later."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self.processes = processes
        self.shared_memory = _mapped_shared_memory(self.processes)
        self.memory_bytes = _memory_bytes(self.processes)
        assert self.processes
        assert self.memory_bytes > 50_000_000

    def assert_gone(self) -> None:
        alive = [process for process in self.processes if process.is_running()]
        assert alive == []
        assert [path for path in self.shared_memory if path.exists()] == []
        assert _memory_bytes(self.processes) == 0


def _mapped_shared_memory(processes: Sequence[psutil.Process]) -> set[Path]:
    maps = "".join(Path(f"/proc/{process.pid}/maps").read_text() for process in processes)
    return {Path(line.split()[5]) for line in maps.splitlines() if "/dev/shm/" in line}


def _memory_bytes(processes: Sequence[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def ready_workers(served: Served) -> list[str]:
    return [entry["model"] for entry in served.log if entry["message"] == "worker ready"]


def test_the_folder_is_listed(client: openai.OpenAI) -> None:
    """Every model of the folder, with its kind, before anything is loaded."""
    models = {model.id: model.model_dump() for model in client.models.list()}
    kinds = {name: model["kind"] for name, model in models.items()}
    assert kinds == {CHAT: "chat", EMBEDDING: "embedding", RERANKER: "reranker", TINY: "chat"}
    assert {model["state"] for model in models.values()} == {"idle"}
    assert models[CHAT]["context_length"] == 8192
    assert client.models.retrieve(EMBEDDING).id == EMBEDDING


def test_the_openai_client_chats(client: openai.OpenAI) -> None:
    """Real vLLM, launched by the first request that names the model."""
    answer = client.chat.completions.create(model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32)
    assert answer.choices[0].message.content == ANSWER
    assert answer.model == CHAT
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 3
    assert client.models.retrieve(CHAT).model_dump()["state"] == "active"


async def test_the_asynchronous_openai_client_streams(served: Served) -> None:
    """Each token arrives as it is made: the first long before the last."""
    arrivals: list[float] = []
    text = ""
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused", timeout=600) as client:
        stream = await client.chat.completions.create(
            model=CHAT,
            messages=CAPITAL,
            temperature=0,
            max_tokens=200,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                arrivals.append(time.monotonic())
                text += chunk.choices[0].delta.content
    assert text.startswith(ANSWER)
    assert len(arrivals) > 50
    # Held back and sent at once, all would arrive within a few milliseconds; made one by one, the first
    # half takes about as long as the second.
    middle = arrivals[len(arrivals) // 2]
    assert middle - arrivals[0] > 0.2 * (arrivals[-1] - arrivals[0])
    assert arrivals[-1] - middle > 0.2 * (arrivals[-1] - arrivals[0])


async def test_langchain_chats(served: Served) -> None:
    """ChatOpenAI, invoke and stream, with nothing changed but the URL."""
    async with httpx.AsyncClient(timeout=600) as connections:
        chat = ChatOpenAI(
            model=CHAT,
            base_url=f"{served.url}/v1",
            api_key="unused",
            temperature=0,
            max_tokens=32,
            http_async_client=connections,
        )
        assert chat.invoke(QUESTION).content == ANSWER
        pieces = [piece.content for piece in chat.stream(QUESTION)]
        assert "".join(str(piece) for piece in pieces) == ANSWER
        assert len([piece for piece in pieces if piece]) > 3
        assert (await chat.ainvoke(QUESTION)).content == ANSWER


def test_the_other_chat_endpoints_answer(served: Served) -> None:
    """Completions, responses, Anthropic's messages, tokenizing: all of vLLM's, at the same URL."""
    with served.client() as client:
        asked = {"model": CHAT, "temperature": 0}
        completion = client.post("/v1/completions", json={**asked, "prompt": "Paris is the", "max_tokens": 4})
        assert completion.json()["choices"][0]["text"].strip()
        responded = client.post("/v1/responses", json={**asked, "input": QUESTION})
        assert "Paris" in responded.text
        message = {**asked, "messages": CAPITAL, "max_tokens": 32}
        assert client.post("/v1/messages", json=message).json()["content"][0]["text"] == ANSWER
        counted = client.post("/v1/messages/count_tokens", json={"model": CHAT, "messages": CAPITAL})
        assert counted.json()["input_tokens"] > 5
        tokens = client.post("/tokenize", json={"model": CHAT, "prompt": "Paris"}).json()["tokens"]
        assert client.post("/detokenize", json={"model": CHAT, "tokens": tokens}).json()["prompt"] == "Paris"


def test_nobody_walks_around_the_front_door(served: Served) -> None:
    """vLLM's own key guards some paths only; each of them is closed here, /invocations too."""
    worker = the_worker(served)
    chat = {"model": CHAT, "messages": CAPITAL, "max_tokens": 4}
    with httpx.Client(base_url=worker.url, timeout=60) as stranger, worker.client() as friend:
        for path in ("/invocations", "/v1/chat/completions", "/tokenize", "/detokenize", "/pooling"):
            assert stranger.post(path, json=chat).status_code == 401, path
        for path in ("/health", "/metrics", "/v1/models", "/docs", "/openapi.json", "/version", "/ping", "/"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.get("/v1/models", headers={"authorization": "Bearer unused"}).status_code == 401
        assert friend.post("/invocations", json=chat).status_code == 200
    with served.client() as outside:
        assert outside.post("/invocations", json=chat).status_code == 404


def test_a_client_that_leaves_stops_its_generation(served: Served) -> None:
    """vLLM's own counters: nothing runs any more, and no further token is made."""
    endless = {"model": CHAT, "messages": CAPITAL, "max_tokens": 8000, "stream": True, "ignore_eos": True}
    with served.client() as client, the_worker(served).client() as worker:
        with client.stream("POST", "/v1/chat/completions", json=endless) as stream:
            lines = stream.iter_lines()
            for _ in range(5):
                next(lines)
            assert metric(worker, "vllm:num_requests_running") == 1
        deadline = time.monotonic() + 30
        while metric(worker, "vllm:num_requests_running") > 0:
            assert time.monotonic() < deadline, "the generation goes on for a client that has left"
        made = metric(worker, "vllm:generation_tokens_total")
        answer = client.post("/v1/chat/completions", json={**endless, "stream": False, "max_tokens": 1})
        assert answer.status_code == 200
        assert metric(worker, "vllm:generation_tokens_total") == made + 1


def test_a_question_embedded_finds_the_nearest_sentence(served: Served, client: openai.OpenAI) -> None:
    """chat -> embed: vLLM's whole tree is gone, and sentence-transformers answers."""
    before = Predecessor(worker_processes(served))
    assert before.shared_memory
    sentences = [
        "Cats sleep most of the day.",
        "Paris is the capital of France.",
        "Bread is baked in an oven.",
    ]
    answer = client.embeddings.create(
        model=EMBEDDING, input=["Which city is the French seat of government?", *sentences]
    )
    before.assert_gone()
    question, *others = [item.embedding for item in answer.data]
    scores = [cosine(question, other) for other in others]
    assert scores.index(max(scores)) == 1
    assert len(question) == 384
    assert answer.usage.total_tokens > 20


def test_langchain_embeds(served: Served, tiktoken_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAIEmbeddings sends token ids of OpenAI's vocabulary; the vectors are those of the text."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", os.fspath(tiktoken_cache))
    url = f"{served.url}/v1"
    by_ids = OpenAIEmbeddings(model=EMBEDDING, base_url=url, api_key="unused")
    by_text = OpenAIEmbeddings(
        model=EMBEDDING, base_url=url, api_key="unused", check_embedding_ctx_length=False
    )
    texts = ["Paris is the capital of France.", "Grüße aus Köln: 你好"]
    for ids, text in zip(by_ids.embed_documents(texts), by_text.embed_documents(texts), strict=True):
        assert cosine(ids, text) > 0.999999
    assert cosine(by_ids.embed_query(texts[0]), by_text.embed_query(texts[1])) < 0.9


def test_the_right_document_is_ranked_first(served: Served) -> None:
    """embed -> rerank: another worker, and the embedding model's is gone."""
    before = Predecessor(worker_processes(served))
    documents = [
        "Cats sleep most of the day.",
        "The capital of Brazil is Brasilia.",
        "Paris is the capital of France.",
    ]
    asked = {"model": RERANKER, "query": "What is the capital of France?", "documents": documents}
    with served.client() as client:
        ranked = client.post("/v1/rerank", json=asked).raise_for_status().json()["results"]
        scored = client.post(
            "/score", json={"model": RERANKER, "text_1": asked["query"], "text_2": documents}
        ).json()["data"]
    before.assert_gone()
    assert ranked[0]["index"] == 2
    assert ranked[0]["document"]["text"] == documents[2]
    assert [item["relevance_score"] for item in ranked] == sorted(
        (item["score"] for item in scored), reverse=True
    )


def test_and_back_to_chat_and_on_to_another(served: Served, client: openai.OpenAI) -> None:
    """rerank -> chat -> other chat, asked for at the same time: each is answered by its own model."""
    before = Predecessor(worker_processes(served))
    stream: Any = client.chat.completions.create(
        model=CHAT, messages=CAPITAL, temperature=0, max_tokens=32, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == ANSWER
    before.assert_gone()
    before = Predecessor(worker_processes(served))
    other = client.chat.completions.create(
        model=TINY, messages=CAPITAL, temperature=0, max_tokens=8, extra_body={"ignore_eos": True}
    )
    before.assert_gone()
    assert other.model == TINY
    assert other.choices[0].message.content
    assert other.choices[0].message.content != text
    assert ready_workers(served) == [CHAT, EMBEDDING, RERANKER, CHAT, TINY]


def test_by_default_workers_come_from_warm_templates(served: Served) -> None:
    """Of both engines; the one that runs was forked, and no start was a cold one."""
    for engine in ("vllm", "transformers"):
        served.wait_for_log("warm template ready", engine=engine)
    (nanny,) = nannies(served)
    assert "--forked" in words(nanny)
    assert not [entry for entry in served.log if "start cold" in entry["message"]]


def test_a_wrong_kind_switches_nothing(served: Served, client: openai.OpenAI) -> None:
    """Told at once; the model that serves goes on serving."""
    running = {process.pid for process in served.descendants()}
    with pytest.raises(openai.BadRequestError, match="does not chat"):
        client.chat.completions.create(model=EMBEDDING, messages=CAPITAL)
    assert {process.pid for process in served.descendants()} == running


def test_killed_without_warning_nothing_stays_behind(served: Served) -> None:
    """SIGKILL to the supervisor with vLLM running: its nanny ends the whole tree and its shared memory."""
    left = Predecessor(served.descendants())  # the warm templates too
    served.process.kill()
    served.process.wait(10)
    psutil.wait_procs(left.processes, timeout=30)
    left.assert_gone()
