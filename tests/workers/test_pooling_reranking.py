"""`/rerank` and `/score` against sentence-transformers itself, on tiny models of both sorts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Folder, Kind
from local_llm_worker.pooling.reranking import QWEN3_INSTRUCTION, QWEN3_TEMPLATE
from tests.workers.conftest import MAX_TOKENS, Serving, sentence

QUERY = "the queen and the river"
DOCUMENTS = [sentence(seed, 3 + seed * 3 % 17) for seed in range(9)]
PATHS = ["/rerank", "/v1/rerank", "/v2/rerank"]


@pytest.fixture(scope="session")
def reference(reranker_folder: Path) -> CrossEncoder:
    """The library that the server is compared with."""
    return CrossEncoder(str(reranker_folder), device="cpu")


@pytest.fixture(scope="session")
def generative(generative_folder: Path) -> CrossEncoder:
    """The library, told the template that the old copy lacks."""
    return CrossEncoder(
        str(generative_folder), device="cpu", processor_kwargs={"chat_template": QWEN3_TEMPLATE}
    )


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    """The answer to a request for the tiny model."""
    answer = await client.post(path, json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_index(answer: Any) -> list[float]:
    """The scores of a ranking, in the order of the documents."""
    return [each["relevance_score"] for each in sorted(answer["results"], key=lambda each: each["index"])]


@pytest.mark.parametrize("path", PATHS)
async def test_ranking(serving: Serving, reranker_folder: Path, reference: CrossEncoder, path: str) -> None:
    """The library's scores, best first, each with the place of its document."""
    expected = reference.predict([(QUERY, each) for each in DOCUMENTS])
    async with serving(reranker_folder) as client:
        answer = await ask(client, path, query=QUERY, documents=DOCUMENTS)
    assert np.allclose(by_index(answer), expected, atol=2e-6)
    scores = [each["relevance_score"] for each in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(DOCUMENTS)


async def test_superset_of_shapes(serving: Serving, reranker_folder: Path) -> None:
    """Jina's, Cohere's and vLLM's clients each find their fields."""
    async with serving(reranker_folder) as client:
        answer = await ask(client, "/v1/rerank", query="a", documents=["b", {"text": "c d", "id": 5}])
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert answer["id"].startswith("rerank-")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 5 + 6
    assert answer["meta"] == {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    assert {each["document"]["text"] for each in answer["results"]} == {"b", "c d"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("asked", [None, True, False])
async def test_documents_returned(
    serving: Serving, reranker_folder: Path, path: str, asked: bool | None
) -> None:
    """As asked; else as Jina and vLLM do on the first two paths, and Cohere on the third."""
    async with serving(reranker_folder) as client:
        fields = {} if asked is None else {"return_documents": asked}
        answer = await ask(client, path, query="a", documents=["b"], **fields)
    expected = path != "/v2/rerank" if asked is None else asked
    assert ("document" in answer["results"][0]) is expected


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (4, 4), (0, 9), (None, 9), (50, 9)])
async def test_top_n(serving: Serving, reranker_folder: Path, top_n: int | None, expected: int) -> None:
    """The best so many; 0 and none mean all."""
    async with serving(reranker_folder) as client:
        everything = await ask(client, "/rerank", query=QUERY, documents=DOCUMENTS)
        answer = await ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, top_n=top_n)
    ranked = [each["index"] for each in everything["results"]]
    assert [each["index"] for each in answer["results"]] == ranked[:expected]


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")]
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_score(
    serving: Serving, reranker_folder: Path, reference: CrossEncoder, path: str, names: tuple[str, str]
) -> None:
    """One with many, or many with as many, in the order of the input."""
    left, right = names
    one_with_many = reference.predict([(QUERY, each) for each in DOCUMENTS])
    many = reference.predict(list(zip(DOCUMENTS, reversed(DOCUMENTS), strict=True)))
    async with serving(reranker_folder) as client:
        first = await ask(client, path, **{left: QUERY, right: DOCUMENTS})
        second = await ask(client, path, **{left: DOCUMENTS, right: DOCUMENTS[::-1]})
        single = await ask(client, path, **{left: QUERY, right: DOCUMENTS[0]})
    assert np.allclose([each["score"] for each in first["data"]], one_with_many, atol=2e-6)
    assert np.allclose([each["score"] for each in second["data"]], many, atol=2e-6)
    assert [each["index"] for each in second["data"]] == list(range(len(DOCUMENTS)))
    assert single["data"] == [
        {"object": "score", "index": 0, "score": pytest.approx(one_with_many[0], abs=2e-6)}
    ]


async def test_raw_logits(serving: Serving, reranker_folder: Path, reference: CrossEncoder) -> None:
    """`use_activation: false` gives what the sigmoid was given."""
    import torch

    expected = reference.predict([(QUERY, each) for each in DOCUMENTS], activation_fn=torch.nn.Identity())
    async with serving(reranker_folder) as client:
        answer = await ask(client, "/score", queries=QUERY, documents=DOCUMENTS, use_activation=False)
    assert np.allclose([each["score"] for each in answer["data"]], expected, atol=2e-5)


async def test_long_documents(serving: Serving, reranker_folder: Path, reference: CrossEncoder) -> None:
    """Told with both lengths; cut by `max_tokens_per_doc`, or with the pair by `truncate_prompt_tokens`."""
    long = sentence(2, MAX_TOKENS)
    cut_by_words = reference.predict([(QUERY, " ".join(long.split()[:10]))])
    async with serving(reranker_folder) as client:
        body = {"model": "tiny", "query": QUERY, "documents": ["a", long]}
        refusal = (await client.post("/rerank", json=body)).json()["error"]
        cut = await ask(client, "/rerank", query=QUERY, documents=[long], max_tokens_per_doc=10)
        whole = await ask(client, "/rerank", query=QUERY, documents=[long], truncate_prompt_tokens=-1)
    assert refusal["param"] == "documents[1]"
    assert str(MAX_TOKENS) in refusal["message"]
    assert np.allclose(by_index(cut), cut_by_words, atol=2e-6)
    assert np.allclose(by_index(whole), reference.predict([(QUERY, long)]), atol=2e-6)
    assert cut["results"][0]["document"]["text"] == long


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/rerank", {"query": "a"}, "documents"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": 5, "documents": ["a"]}, "query"),
        ("/rerank", {"query": {"image": "a"}, "documents": ["a"]}, "query"),
        ("/rerank", {"query": "a", "documents": ["a", 5]}, "documents[1]"),
        ("/rerank", {"query": "a", "documents": ["a", {"title": "b"}]}, "documents[1]"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
        ("/rerank", {"query": "a", "documents": ["a"], "top_n": "2"}, "top_n"),
        ("/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ("/rerank", {"query": "a", "documents": ["a"], "instruction": "b"}, "instruction"),
        ("/score", {"queries": "a"}, None),
        ("/score", {"text_1": "a", "documents": "b"}, None),
        ("/score", {"queries": [], "documents": ["b"]}, "queries"),
        ("/score", {"queries": "a", "documents": []}, "documents"),
        ("/score", {"queries": ["a", "b"], "documents": ["c", "d", "e"]}, "queries"),
        ("/score", {"queries": ["a", "b"], "documents": "c"}, "queries"),
        ("/score", {"text_1": "a", "text_2": ["b", "x " * 60]}, "text_2[1]"),
        ("/v1/embeddings", {"input": "a"}, "model"),
    ],
)
async def test_bad_input(
    serving: Serving, reranker_folder: Path, path: str, body: dict[str, Any], param: str | None
) -> None:
    """A 400 that names the field, whatever is sent."""
    async with serving(reranker_folder) as client:
        answer = await client.post(path, json={"model": "tiny", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_generative(serving: Serving, generative_folder: Path, generative: CrossEncoder) -> None:
    """P(yes) of an old copy of Qwen3-Reranker, alone and batched, equal to the library's."""
    expected = generative.predict([(QUERY, each) for each in DOCUMENTS])
    async with serving(generative_folder) as client:
        answer = await ask(client, "/rerank", query=QUERY, documents=DOCUMENTS)
        alone = await asyncio.gather(
            *(ask(client, "/rerank", query=QUERY, documents=[each]) for each in DOCUMENTS)
        )
    assert np.ptp(expected) > 0.01
    assert np.allclose(by_index(answer), expected, atol=1e-5)
    assert np.allclose([by_index(each)[0] for each in alone], expected, atol=1e-5)


async def test_generative_is_asked_in_the_words_of_its_card(generative: CrossEncoder) -> None:
    """The template gives the prompt of the model's card, with the instruction or the usual one."""
    tokenizer = generative.tokenizer
    for prompt, instruction in ((None, QWEN3_INSTRUCTION), ("Find rivers", "Find rivers")):
        features = generative.preprocess([("q?", "d.")], prompt=prompt)
        assert tokenizer.decode(features["input_ids"][0]) == (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
            'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
            f"<|im_start|>user\n<Instruct>: {instruction}\n<Query>: q?\n<Document>: d.<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )


async def test_generative_takes_an_instruction(
    serving: Serving, generative_folder: Path, generative: CrossEncoder
) -> None:
    """What relevance means can be said with the request."""
    pairs = [(QUERY, each) for each in DOCUMENTS]
    expected = generative.predict(pairs, prompt="Find rivers")
    async with serving(generative_folder) as client:
        answer = await ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, instruction="Find rivers")
    assert np.allclose(by_index(answer), expected, atol=1e-5)
    assert not np.allclose(expected, generative.predict(pairs), atol=1e-4)


async def test_generative_keeps_its_question_when_cut(
    serving: Serving, generative_folder: Path, generative: CrossEncoder
) -> None:
    """Truncation takes from the document, never the template's last words, where the answer is read."""
    long = sentence(3, 200)
    async with serving(generative_folder) as client:
        refusal = await client.post("/rerank", json={"model": "tiny", "query": "q", "documents": [long]})
        answer = await ask(client, "/rerank", query="q", documents=[long], truncate_prompt_tokens=-1)
    assert refusal.status_code == 400
    assert answer["usage"]["prompt_tokens"] == generative.max_seq_length
    assert np.allclose(by_index(answer), generative.predict([("q", long)]), atol=1e-5)


async def test_as_sentence_transformers_saves_it(
    serving: Serving, generative_folder: Path, generative: CrossEncoder, tmp_path: Path
) -> None:
    """Newer copies bring their LogitScore and their template, and are known by it whatever their name."""
    folder = tmp_path / "some-model"
    generative.save_pretrained(str(folder), create_model_card=False)
    (folder / "config_sentence_transformers.json").unlink()
    assert Folder(folder).kind() is Kind.RERANKER
    async with serving(folder) as client:
        answer = await ask(client, "/rerank", query=QUERY, documents=DOCUMENTS)
    assert np.allclose(by_index(answer), generative.predict([(QUERY, each) for each in DOCUMENTS]), atol=1e-5)


def test_unknown_generative_reranker(generative_folder: Path, tmp_path: Path) -> None:
    """A language model that nothing says how to ask is refused, before it answers nonsense."""
    import shutil

    from local_llm_worker.pooling.loading import LoadOptions, load

    folder = shutil.copytree(generative_folder, tmp_path / "mystery-reranker")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"qwen3"', '"llama"').replace("Qwen3For", "LlamaFor"))
    with pytest.raises(ModelRefused, match="nothing in it says how"):
        load(folder, LoadOptions(Kind.RERANKER, device="cpu"))
