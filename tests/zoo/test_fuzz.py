"""Damage of any sort to the small files of real folders."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.zoo.collection import SERVED
from tests.zoo.fuzzing import BY_ID, VALUES, judge
from tests.zoo.specimen import Sparse

_HOSTILE_TEXTS = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "nested and closed": "[" * 50_000 + "]" * 50_000,
    "not a number": '{"num_hidden_layers": NaN, "hidden_size": Infinity, "vocab_size": -Infinity}',
    "huge number": '{"num_hidden_layers": 1' + "0" * 5000 + "}",
    "huge exponent": '{"num_hidden_layers": 1e400, "hidden_size": 1e308}',
    "surrogates": '{"architectures": ["\\ud800"], "weight_map": {"\\udfff": "\\ud800"}}',
    "keys twice": '{"architectures": ["A"], "architectures": {}, "weight_map": 1, "weight_map": []}',
    "NUL": '{"architectures": ["\\u0000"], "weight_map": {"\\u0000": "\\u0000"}}',
    "byte order mark": "\ufeff{}",
    "null": "null",
    "number": "1",
    "unfinished text": '"' + "x" * 100_000,
    "many keys": json.dumps({str(number): number for number in range(50_000)}),
}
_BYTES = {
    **{title: text.encode("utf-8", "surrogatepass") for title, text in _HOSTILE_TEXTS.items()},
    "UTF-16": '{"architectures": ["A"]}'.encode("utf-16"),
    "UTF-32": '{"architectures": ["A"]}'.encode("utf-32"),
    "Latin-1": '{"architectures": ["\xe9"]}'.encode("latin-1"),
    "NUL bytes": bytes(5000),
    "spaces": b" " * 1_000_000,
}


_INDEX = {"weight_map": {"model.embed_tokens.weight": "model.safetensors"}}
_HOSTS = (
    {
        **BY_ID["Qwen/Qwen3-4B-Instruct-2507"].files,
        "model.safetensors.index.json": _INDEX,
        "hf_quant_config.json": {"quantization": {"quant_algo": "NVFP4"}},
        "chat_template.json": {"chat_template": "{{ messages }}"},
    },
    BY_ID["sentence-transformers/all-MiniLM-L6-v2"].files,
    BY_ID["zoo/adapter-of-llama"].files,
    BY_ID["mistralai/Ministral-3-8B-Instruct-2512"].files,
)


@pytest.mark.parametrize("title", _BYTES)
@pytest.mark.usefixtures("little_memory")
def test_hostile_files(title: str) -> None:
    """Each in the place of each small file, of a chat model, an embedding model, an adapter, a Mistral."""
    for files in _HOSTS:
        for name, content in files.items():
            if isinstance(content, (dict, list, str)):
                judge({**files, name: _BYTES[title]})


@pytest.mark.parametrize("start", [b"", b"{", b'{"a": "', b"GGUF\3\0\0\0" + b"\xff" * 16])
@pytest.mark.usefixtures("little_memory")
def test_huge_files(start: bytes) -> None:
    """Ten gigabytes of zeros, after a start that may be right, in the place of any file."""
    huge = Sparse(start, 10 << 30)
    for files in (*_HOSTS, BY_ID["zoo/SmolLM2-135M-GGUF"].files):
        for name in files:
            judge({**files, name: huge})


_WITH_CONFIG = tuple(each for each in SERVED if "config.json" in each.files)


def _changed(data: st.DataObject, content: Any) -> Any:
    """Some values, at any depth, become something else; some keys go."""
    if isinstance(content, dict) and content:
        changed = dict(content)
        for key in data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=4, unique=True)):
            inner = content[key]
            what = data.draw(st.sampled_from(("deeper", "other", "gone")))
            if what == "gone":
                del changed[key]
            elif what == "deeper" and isinstance(inner, (dict, list)) and inner:
                changed[key] = _changed(data, inner)
            else:
                changed[key] = data.draw(VALUES)
        return changed
    if isinstance(content, list) and content:
        position = data.draw(st.integers(0, len(content) - 1))
        return [*content[:position], data.draw(VALUES), *content[position + 1 :]]
    return data.draw(VALUES)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_configurations(data: st.DataObject) -> None:
    """Any field of a real config.json wrong, absurd or absent."""
    specimen = data.draw(st.sampled_from(_WITH_CONFIG))
    judge({**specimen.files, "config.json": _changed(data, specimen.files["config.json"])})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_other_files(data: st.DataObject) -> None:
    """The same of every other JSON file of a folder, and of an adapter's."""
    specimen = data.draw(st.sampled_from(SERVED))
    files = specimen.files.items()
    names = [name for name, each in files if isinstance(each, (dict, list)) and name != "tokenizer.json"]
    assume(names)
    name = data.draw(st.sampled_from(names))
    judge({**specimen.files, name: _changed(data, specimen.files[name])})


@settings(max_examples=30, deadline=None)
@given(
    st.text(max_size=60) | st.sampled_from(["{%" * 40_000, "{{" * 40_000, "<think>" * 40_000, "(" * 200_000])
)
def test_templates(template: str) -> None:
    """A chat template may hold anything; it is only searched, never run."""
    files = BY_ID["Qwen/Qwen3-0.6B"].files
    judge({**files, "chat_template.jinja": template.encode("utf-8", "surrogatepass")})
    judge({**files, "tokenizer_config.json": {"chat_template": template}})
    judge({**files, "tokenizer_config.json": {"chat_template": [{"name": "default", "template": template}]}})


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES.filter(lambda name: name not in {".", ".."}), st.binary(max_size=9), max_size=5))
def test_names_of_files(others: dict[str, bytes]) -> None:
    """Files of any name lie in the folder."""
    judge({**BY_ID["Qwen/Qwen3-0.6B"].files, **others})
