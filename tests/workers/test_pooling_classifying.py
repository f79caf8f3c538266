"""`/classify` against transformers' own model and pipeline, on tiny models with random weights."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Kind
from local_llm_worker.pooling.loading import LoadOptions, load
from tests.workers.conftest import MAX_TOKENS, Serving, sentence, write_classifier

TEXTS = [sentence(seed, 2 + seed * 5 % 23) for seed in range(11)]
LABELS = ["sad", "glad", "mad"]


def logits(folder: Path, *inputs: Any, **options: Any) -> torch.Tensor:
    """What transformers computes for one input, alone in its batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(*inputs, return_tensors="pt", **options)
    with torch.inference_mode():
        return model(**tokens).logits[0]


async def ask(client: httpx.AsyncClient, path: str = "/v1/classify", **body: Any) -> Any:
    """The answer to a request for the tiny model."""
    answer = await client.post(path, json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def probabilities(answer: Any) -> list[list[float]]:
    """Of each input, in order."""
    return [each["probs"] for each in answer["data"]]


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
async def test_as_the_pipeline_says(serving: Serving, classifier_folder: Path, path: str) -> None:
    """Labels and probabilities are those of transformers' own pipeline, in the order of the input."""
    expected = pipeline("text-classification", model=str(classifier_folder), device="cpu", top_k=None)(TEXTS)
    async with serving(classifier_folder) as client:
        answer = await ask(client, path, input=TEXTS)
    for index, (found, scores) in enumerate(zip(answer["data"], expected, strict=True)):
        by_label = {each["label"]: each["score"] for each in scores}
        assert np.allclose(found["probs"], [by_label[label] for label in LABELS], atol=2e-6)
        assert found["label"] == max(by_label, key=lambda label: by_label[label])
        assert (found["index"], found["num_classes"]) == (index, 3)
    assert len({each["label"] for each in answer["data"]}) > 1


async def test_shape(serving: Serving, classifier_folder: Path) -> None:
    """The fields are vLLM's."""
    async with serving(classifier_folder) as client:
        answer = await ask(client, input="the queen")
    assert answer.keys() == {"id", "object", "created", "model", "data", "usage"}
    assert answer["id"].startswith("classify-")
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0}
    assert answer["data"][0].keys() == {"index", "label", "probs", "num_classes"}


async def test_raw_numbers(serving: Serving, classifier_folder: Path) -> None:
    """`use_activation: false` has the model's own numbers."""
    async with serving(classifier_folder) as client:
        answer = await ask(client, input=TEXTS[0], use_activation=False)
    assert np.allclose(probabilities(answer)[0], logits(classifier_folder, TEXTS[0]), atol=1e-5)


async def test_pairs(serving: Serving, classifier_folder: Path) -> None:
    """A premise with its hypothesis, as NLI models want them."""
    pairs = [["the queen sleeps", "she is new"], ["rain", "a red sun"]]
    async with serving(classifier_folder) as client:
        answer = await ask(client, input=pairs)
    for found, pair in zip(probabilities(answer), pairs, strict=True):
        assert np.allclose(found, logits(classifier_folder, *pair).softmax(-1), atol=2e-6)


async def test_token_ids(serving: Serving, classifier_folder: Path) -> None:
    """One array or several, of the model's own ids."""
    ids = AutoTokenizer.from_pretrained(classifier_folder)(TEXTS[:2])["input_ids"]
    async with serving(classifier_folder) as client:
        as_texts = probabilities(await ask(client, input=TEXTS[:2]))
        assert np.allclose(probabilities(await ask(client, input=ids)), as_texts, atol=2e-6)
        assert np.allclose(probabilities(await ask(client, input=ids[0])), as_texts[:1], atol=2e-6)


async def test_without_special_tokens(serving: Serving, classifier_folder: Path) -> None:
    """`add_special_tokens: false` reads the bare text."""
    async with serving(classifier_folder) as client:
        answer = await ask(client, input=TEXTS[0], add_special_tokens=False)
    expected = logits(classifier_folder, TEXTS[0], add_special_tokens=False).softmax(-1)
    assert np.allclose(probabilities(answer)[0], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"problem_type": "single_label_classification"}, lambda raw: raw.softmax(-1)),
        ({"problem_type": "multi_label_classification"}, lambda raw: raw.sigmoid()),
        ({"problem_type": "regression"}, lambda raw: raw),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            lambda raw: raw.softmax(-1),
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            lambda raw: raw.sigmoid(),
        ),
    ],
)
async def test_what_makes_probabilities(
    tmp_path: Path, serving: Serving, settings: dict[str, Any], expected: Any
) -> None:
    """`problem_type` first, then what sentence-transformers has noted, else labels exclude one another."""
    folder = write_classifier(tmp_path / "model", **settings)
    async with serving(folder) as client:
        answer = await ask(client, input=TEXTS[0])
    assert np.allclose(probabilities(answer)[0], expected(logits(folder, TEXTS[0])), atol=1e-5)


async def test_a_cross_encoder_of_several_labels(
    tmp_path: Path, serving: Serving, classifier_folder: Path
) -> None:
    """A folder as sentence-transformers saves its NLI models."""
    CrossEncoder(str(classifier_folder), device="cpu").save_pretrained(
        str(tmp_path / "nli"), create_model_card=False
    )
    async with serving(tmp_path / "nli") as client:
        answer = await ask(client, input=[["the queen sleeps", "she is new"]])
    expected = logits(classifier_folder, "the queen sleeps", "she is new").softmax(-1)
    assert np.allclose(probabilities(answer)[0], expected, atol=2e-6)
    assert answer["data"][0]["label"] == LABELS[int(expected.argmax())]


async def test_a_conversation(tmp_path: Path, serving: Serving) -> None:
    """Messages go through the model's chat template, which brings the special tokens that it wants."""
    folder = write_classifier(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for each in messages %}{{ each.role }} {{ each.content }} {% endfor %}"
        "{{ mood }}{% if add_generation_prompt %} king{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    parts = [{"type": "text", "text": "the queen"}, {"type": "text", "text": "sleeps"}]
    messages = [{"role": "man", "content": "a cat"}, {"role": "woman", "content": parts}]
    async with serving(folder) as client:
        answer = await ask(
            client,
            messages=messages,
            add_generation_prompt=True,
            chat_template_kwargs={"mood": "red", "tokenize": True},
        )
    text = "man a cat woman the queen\nsleeps red king"
    expected = logits(folder, text, add_special_tokens=False).softmax(-1)
    assert np.allclose(probabilities(answer)[0], expected, atol=2e-6)


async def test_many_at_once(serving: Serving, classifier_folder: Path) -> None:
    """Requests that are computed together are each answered with their own."""
    async with serving(classifier_folder) as client:
        alone = [probabilities(await ask(client, input=text)) for text in TEXTS]
        together = await asyncio.gather(*(ask(client, input=text) for text in TEXTS))
    assert np.allclose([probabilities(each) for each in together], alone, atol=2e-6)


async def test_truncation(serving: Serving, classifier_folder: Path) -> None:
    """Too long is refused, unless the client has it cut."""
    text = sentence(3, 2 * MAX_TOKENS)
    async with serving(classifier_folder) as client:
        refused = await client.post("/classify", json={"model": "tiny", "input": ["a", text]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[1]")
        answer = await ask(client, input=text, truncate_prompt_tokens=-1)
        assert answer["usage"]["prompt_tokens"] == MAX_TOKENS
        answer = await ask(client, input=text, truncate_prompt_tokens=7)
    expected = logits(classifier_folder, text, truncation=True, max_length=7).softmax(-1)
    assert np.allclose(probabilities(answer)[0], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["a", 7]}, "input[1]"),
        ({"input": [["a", "b"], ["c"]]}, "input[1]"),
        ({"input": [["a", "b"], "c"]}, "input[1]"),
        ({"input": [["a", "b", "c"]]}, "input[0]"),
        ({"input": [[1, 2], "c"]}, "input[1]"),
        ({"input": [1, 99_999]}, "input"),
        ({"input": [1, 2], "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages"),  # it has no chat template
    ],
)
async def test_what_cannot_be_classified(
    serving: Serving, classifier_folder: Path, body: dict[str, Any], param: str
) -> None:
    """400 in OpenAI's shape, and the field at fault."""
    async with serving(classifier_folder) as client:
        answer = await client.post("/classify", json={"model": "tiny", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_other_kinds_say_where_to_ask(
    serving: Serving, classifier_folder: Path, reranker_folder: Path
) -> None:
    """A reranker does not classify, nor does a classifier rank."""
    async with serving(reranker_folder) as client:
        answer = await client.post("/classify", json={"model": "tiny", "input": "a"})
        assert "ask /v1/rerank" in answer.json()["error"]["message"]
    async with serving(classifier_folder) as client:
        answer = await client.post("/score", json={"model": "tiny", "text_1": "a", "text_2": "b"})
        assert answer.status_code == 400
        assert "ask /v1/classify" in answer.json()["error"]["message"]


def test_a_prompt_is_refused(classifier_folder: Path) -> None:
    """It is a setting of embedding models."""
    with pytest.raises(ModelRefused, match="embedding"):
        load(classifier_folder, LoadOptions(Kind.CLASSIFIER, device="cpu", prompt="query"))
