"""`/v1/embeddings` against sentence-transformers itself, on a tiny model."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.workers.conftest import MAX_TOKENS, Serving, sentence

# bpe-openai reads its vocabulary by a function that Python 3.11 deprecated and 3.13 kept after all.
pytestmark = pytest.mark.filterwarnings("ignore:open_binary is deprecated:DeprecationWarning")

TEXTS = [sentence(seed, 3 + seed * 5 % 20) for seed in range(12)]


@pytest.fixture(scope="session")
def reference(embedding_folder: Path) -> SentenceTransformer:
    """The library that the server is compared with."""
    return SentenceTransformer(str(embedding_folder), device="cpu")


async def embed(client: httpx.AsyncClient, given: Any, **fields: Any) -> npt.NDArray[np.float32]:
    """The vectors that the server answers."""
    answer = await client.post("/v1/embeddings", json={"model": "tiny", "input": given, **fields})
    assert answer.status_code == 200, answer.text
    assert [each["index"] for each in answer.json()["data"]] == list(range(len(answer.json()["data"])))
    return np.array([each["embedding"] for each in answer.json()["data"]], np.float32)


async def refused(client: httpx.AsyncClient, body: Any, path: str = "/v1/embeddings") -> tuple[int, str, Any]:
    """Status, message and field of a refusal."""
    content = body if isinstance(body, bytes) else None
    answer = await client.post(path, content=content, json=None if content is not None else body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["message"], error["param"]


def close(ours: npt.NDArray[np.float32], theirs: Any) -> bool:
    """Equal but for the order of sums in batches of other widths."""
    return ours.shape == theirs.shape and bool(np.allclose(ours, theirs, atol=2e-6))


async def test_same_vectors_as_the_library(
    serving: Serving, embedding_folder: Path, reference: SentenceTransformer
) -> None:
    """A list, a single text, and many requests at once give what `encode` gives."""
    expected = reference.encode(TEXTS)
    async with serving(embedding_folder) as client:
        assert close(await embed(client, TEXTS), expected)
        assert close(await embed(client, TEXTS[0]), expected[:1])
        together = await asyncio.gather(*(embed(client, text) for text in TEXTS))
    assert close(np.concatenate(together), expected)


async def test_shape(serving: Serving, embedding_folder: Path) -> None:
    """OpenAI's fields; the model is the name that was asked for; tokens are counted."""
    async with serving(embedding_folder) as client:
        body = {"model": "org/tiny", "input": ["the cat", "the red dog"], "user": "somebody"}
        answer = (await client.post("/embeddings", json=body)).json()
    assert (answer["object"], answer["model"]) == ("list", "org/tiny")
    assert {each["object"] for each in answer["data"]} == {"embedding"}
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] == 4 + 5


async def test_base64_is_little_endian_float32(serving: Serving, embedding_folder: Path) -> None:
    """What OpenAI's Python client asks for carries the same numbers."""
    async with serving(embedding_folder) as client:
        plain = await embed(client, TEXTS[0])
        body = {"model": "tiny", "input": TEXTS[0], "encoding_format": "base64"}
        encoded = (await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(encoded), "<f4"), plain[0])


async def test_dimensions_cut_and_renormalise(
    serving: Serving, embedding_folder: Path, reference: SentenceTransformer
) -> None:
    """The first numbers of the vector, at length 1."""
    expected = reference.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    async with serving(embedding_folder) as client:
        assert close(await embed(client, TEXTS, dimensions=8), expected)
        assert close(await embed(client, TEXTS, dimensions=32), reference.encode(TEXTS))


@pytest.mark.parametrize(
    ("fields", "prompt_name"),
    [
        ({}, None),
        ({"prompt_name": "query"}, "query"),
        ({"input_type": "search_query"}, "query"),
        ({"input_type": "query"}, "query"),
        ({"input_type": "clustering"}, "clustering"),
        ({"input_type": "search_document"}, None),
        ({"input_type": "classification"}, None),  # a known role that this model has no prompt for
    ],
)
async def test_prompts(
    serving: Serving,
    embedding_folder: Path,
    reference: SentenceTransformer,
    fields: dict[str, str],
    prompt_name: str | None,
) -> None:
    """No prompt unless asked for; pooling leaves its tokens out where the folder says so."""
    async with serving(embedding_folder) as client:
        given, plain = await asyncio.gather(embed(client, TEXTS, **fields), embed(client, TEXTS))
    assert close(given, reference.encode(TEXTS, prompt_name=prompt_name))
    assert close(plain, reference.encode(TEXTS))


async def test_openai_token_ids_mean_their_text(serving: Serving, embedding_folder: Path) -> None:
    """LangChain's ids of `cl100k_base` give the vector of the text; half a character does no harm."""
    import bpe_openai

    encoding = bpe_openai.get_encoding("cl100k_base")
    ids = [encoding.encode(text) for text in TEXTS]
    async with serving(embedding_folder) as client:
        assert np.array_equal(await embed(client, ids), await embed(client, TEXTS))
        assert np.array_equal(await embed(client, ids[0]), await embed(client, TEXTS[0]))
        assert (await embed(client, encoding.encode("fish 🐟")[:-1])).shape == (1, 32)


async def test_own_token_ids(
    serving: Serving, embedding_folder: Path, reference: SentenceTransformer
) -> None:
    """Under `--token-ids model` ids go to the model as they are, special tokens included."""
    from local_llm_worker.pooling.token_ids import TokenIds

    ids = reference.tokenizer(TEXTS)["input_ids"]
    async with serving(embedding_folder, token_ids=TokenIds.MODEL) as client:
        assert close(await embed(client, ids), reference.encode(TEXTS))
        status, message, param = await refused(client, {"model": "tiny", "input": [[5], [5, 10_000]]})
        assert (status, param) == (400, "input[1]")
        assert "10000" in message
        with_prompt = {"model": "tiny", "input": [5], "prompt_name": "query"}
        assert (await refused(client, with_prompt))[::2] == (400, "prompt_name")


async def test_too_long_is_told_and_cut_only_when_asked(
    serving: Serving, embedding_folder: Path, reference: SentenceTransformer
) -> None:
    """Both lengths and the field are named; -1 cuts to the model's length, a number to that."""
    long = sentence(1, MAX_TOKENS)
    async with serving(embedding_folder) as client:
        status, message, param = await refused(client, {"model": "tiny", "input": ["short", long]})
        assert (status, param) == (400, "input[1]")
        assert str(MAX_TOKENS) in message
        assert str(MAX_TOKENS + 2) in message
        assert close(await embed(client, long, truncate_prompt_tokens=-1), reference.encode([long]))
        short = reference.encode([" ".join(long.split()[:6])])
        assert close(await embed(client, long, truncate_prompt_tokens=8), short)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "tiny"}, "input"),
        ({"model": 5, "input": "a"}, "model"),
        ({"model": "tiny", "input": []}, "input"),
        ({"model": "tiny", "input": None}, "input"),
        ({"model": "tiny", "input": 5}, "input"),
        ({"model": "tiny", "input": {"text": "a"}}, "input"),
        ({"model": "tiny", "input": ["a", 5]}, "input[1]"),
        ({"model": "tiny", "input": ["a", None]}, "input[1]"),
        ({"model": "tiny", "input": [[]]}, "input[0]"),
        ({"model": "tiny", "input": [[1], []]}, "input[1]"),
        ({"model": "tiny", "input": [1, "a"]}, "input"),
        ({"model": "tiny", "input": [True]}, "input[0]"),
        ({"model": "tiny", "input": [[1], "a"]}, "input[1]"),
        ({"model": "tiny", "input": [1.5]}, "input[0]"),
        ({"model": "tiny", "input": [100_256]}, "input"),  # between the words and the special tokens
        ({"model": "tiny", "input": [[1], [-1]]}, "input[1]"),
        ({"model": "tiny", "input": [2**40]}, "input"),
        ({"model": "tiny", "input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"model": "tiny", "input": "a", "dimensions": 0}, "dimensions"),
        ({"model": "tiny", "input": "a", "dimensions": 33}, "dimensions"),
        ({"model": "tiny", "input": "a", "dimensions": "8"}, "dimensions"),
        ({"model": "tiny", "input": "a", "prompt_name": "nobody"}, "prompt_name"),
        ({"model": "tiny", "input": "a", "input_type": "nobody"}, "input_type"),
        ({"model": "tiny", "input": "a", "input_type": "query", "prompt_name": "query"}, "prompt_name"),
        ({"model": "tiny", "input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"model": "tiny", "input": "a", "truncate_prompt_tokens": 2}, "truncate_prompt_tokens"),
        ({"model": "tiny", "input": "a", "truncate_prompt_tokens": 49}, "truncate_prompt_tokens"),
        (b'{"model": "tiny", "input": [NaN]}', "input[0]"),
        (b'{"model": "tiny", "input": "a", "dimensions": Infinity}', "dimensions"),
        (b'{"model": "tiny", "input": "\\ud800"}', None),
        (b'{"model": "tiny", "input": "\xff"}', None),
        (b'{"model": "tiny"', None),
        (b"[" * 100_000, None),
        (b'{"model": "tiny", "input": ' + b"[" * 100_000, None),
        (b"[1]", None),
        (b"", None),
    ],
)
async def test_bad_input(serving: Serving, embedding_folder: Path, body: Any, param: str | None) -> None:
    """A 400 that names the field, whatever is sent."""
    async with serving(embedding_folder) as client:
        assert (await refused(client, body))[::2] == (400, param)


async def test_unknown_prompt_lists_the_known(serving: Serving, embedding_folder: Path) -> None:
    """The message says what there is to choose from."""
    async with serving(embedding_folder) as client:
        body = {"model": "tiny", "input": "a", "prompt_name": "nobody"}
        assert "clustering, document, query" in (await refused(client, body))[1]


async def test_other_paths_and_models(serving: Serving, embedding_folder: Path) -> None:
    """Unknown models and paths, wrong methods, endpoints of another kind, bodies without end."""
    pair = {"model": "tiny", "query": "a", "documents": ["b"]}
    async with serving(embedding_folder, max_body_bytes=1000) as client:
        assert (await refused(client, {"model": "nobody", "input": "a"}))[::2] == (404, "model")
        assert (await refused(client, pair, "/rerank"))[::2] == (400, "model")
        assert (await refused(client, {}, "/v1/chat/completions"))[0] == 404
        assert (await refused(client, {"model": "tiny", "input": "a" * 1000}))[0] == 413
        wrong_method = await client.get("/v1/embeddings")
        assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
        assert (await client.get("/health")).status_code == 200
        listed = (await client.get("/v1/models")).json()["data"]
    assert [each["id"] for each in listed] == ["tiny", "org/tiny"]
    assert {each["max_model_len"] for each in listed} == {MAX_TOKENS}


async def test_default_prompt_of_the_folder(
    serving: Serving, embedding_folder: Path, tmp_path: Path, reference: SentenceTransformer
) -> None:
    """A `default_prompt_name` in the folder applies where nothing is asked for, as in the library."""
    folder = tmp_path / "with-default"
    model = SentenceTransformer(str(embedding_folder), device="cpu", default_prompt_name="query")
    model.save_pretrained(str(folder), create_model_card=False)
    async with serving(folder) as client:
        assert close(await embed(client, TEXTS), reference.encode(TEXTS, prompt_name="query"))
        assert close(await embed(client, TEXTS, input_type="document"), reference.encode(TEXTS, prompt=""))


def test_half_precision_is_normalised_in_full(embedding_folder: Path, reference: SentenceTransformer) -> None:
    """With weights in bfloat16 the vectors have length 1 in float32, and point the same way."""
    from local_llm_worker.pooling.folder import Kind
    from local_llm_worker.pooling.inputs import TokenizeOptions
    from local_llm_worker.pooling.loading import LoadOptions, load

    model, *_ = load(embedding_folder, LoadOptions(Kind.EMBEDDING, device="cpu", dtype="bfloat16"))
    rows = model.compute(model.tokenize(TEXTS, TokenizeOptions()))

    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert (rows * reference.encode(TEXTS)).sum(axis=1).min() > 0.98


async def test_batches_at_once(embedding_folder: Path) -> None:
    """Several threads are in the model together; each text has the vector that it has alone."""
    from local_llm_worker.pooling.engine import Engine
    from local_llm_worker.pooling.folder import Kind
    from local_llm_worker.pooling.inputs import TokenizeOptions
    from local_llm_worker.pooling.loading import LoadOptions, load

    threads = torch.get_num_threads()
    loaded = load(embedding_folder, LoadOptions(Kind.EMBEDDING, device="cpu", threads=2))
    torch.set_num_threads(threads)
    assert loaded.lanes.beside == (1, 1)
    options = TokenizeOptions(max_length=MAX_TOKENS)
    texts = [" ".join(TEXTS[: 1 + n % len(TEXTS)]) + "." * (n % 40) for n in range(200)]
    alone = [loaded.model.compute(loaded.model.tokenize([each], options))[0] for each in texts]
    async with Engine(loaded.model, loaded.limits, pytest.fail, loaded.lanes) as engine:
        outcomes = await asyncio.gather(*(engine.submit([each], options) for each in texts))
    assert np.allclose(np.concatenate([each.rows for each in outcomes]), alone, atol=1e-5)
