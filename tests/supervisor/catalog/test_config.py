"""What config.json and its neighbours say, right or wrong."""

from __future__ import annotations

from typing import Any

import pytest

from local_llm.catalog import config


@pytest.mark.parametrize(
    ("said", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"seq_length": 8192}, 8192),
        ({"model_max_length": int(1e30)}, None),
        ({"max_position_embeddings": -1, "n_positions": 77}, 77),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": "4096"}, None),
        ({"max_position_embeddings": 2048.0}, None),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"text_config": [1]}, None),
        ({}, None),
    ],
)
def test_context_length(said: dict[str, Any], length: int | None) -> None:
    """Found under the families' names and in the text part; nonsense is no length."""
    assert config.context_length(said) == length


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({"id2label": {"0": "LABEL_0"}, "num_labels": 7}, 1),
        ({"num_labels": 3}, 3),
        ({"id2label": ["a"]}, None),
        ({"num_labels": "2"}, None),
        ({}, None),
    ],
)
def test_label_count(said: dict[str, Any], count: int | None) -> None:
    """id2label comes before num_labels."""
    assert config.label_count(said) == count


@pytest.mark.parametrize(
    "named", [[], [""], [5], ["Llama\nForCausalLM"], ["\ud800"], ["A" * 1000], "A", None]
)
def test_no_architecture(named: object) -> None:
    """An architecture is a Python class's name, or there is none."""
    assert config.architecture({"architectures": named}) is None
    assert config.architecture({"architectures": ["LlamaForCausalLM"]}) == "LlamaForCausalLM"


def test_module_types_old_and_new() -> None:
    """The dotted names before and after sentence-transformers 5.4 mean the same module."""
    modules = [
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling", "path": 3},
        {"type": None},
        "Pooling",
    ]
    assert config.module_types(modules) == (("Pooling", "1_Pooling"), ("Pooling", ""))
    assert config.module_types({"type": "Pooling"}) == ()


@pytest.mark.parametrize(
    ("template", "found"),
    [("{{ x }}", True), ([{"name": "default", "template": "x"}], True), ("", False), ([], False), (5, False)],
)
def test_has_template(template: object, found: bool) -> None:
    """A template is text, or a list of named ones."""
    assert config.has_template({"chat_template": template}) is found
