"""Whatever a folder's files hold: a card or a reason, never an exception."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from local_llm.catalog.card import BrokenModel, ModelCard
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import write

_NAMES = st.sampled_from(
    ["", ".", "..", "/etc/passwd", "../x", "a\0b", "\ud800", "model.safetensors", "1_Pooling", "x" * 5000]
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _NAMES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | _NAMES, inner, max_size=4)
    ),
    max_leaves=8,
)
_ARCHITECTURES = st.sampled_from(
    [
        "LlamaForCausalLM",
        "BertModel",
        "BertForSequenceClassification",
        "T5ForConditionalGeneration",
        "A\nModel",
    ]
)
_TYPES = st.sampled_from(["a.Pooling", "b.LogitScore", "Transformer", ".", ""])


def _objects(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with the keys that are read, each of them right, wrong or absent; or something else."""
    keys = {key: value | _ANYTHING for key, value in known.items()}
    return st.fixed_dictionaries({}, optional=keys) | _ANYTHING


_SIZES = st.integers(-2, 2**70)
_FILES: dict[str, st.SearchStrategy[Any]] = {
    "config.json": _objects(
        architectures=st.lists(_ARCHITECTURES, min_size=1, max_size=2),
        id2label=st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=3),
        num_labels=_SIZES,
        is_encoder_decoder=st.booleans(),
        max_position_embeddings=_SIZES,
        text_config=_objects(n_positions=_SIZES),
        vision_config=_ANYTHING,
        _class_name=_NAMES,
        _diffusers_version=_ANYTHING,
    ),
    "modules.json": st.lists(_objects(type=_TYPES, path=_NAMES), max_size=3) | _ANYTHING,
    "model.safetensors.index.json": _objects(weight_map=st.dictionaries(st.text(max_size=3), _NAMES)),
    "config_sentence_transformers.json": _objects(model_type=st.sampled_from(["CrossEncoder", "ColBERT"])),
    "sentence_bert_config.json": _objects(max_seq_length=_SIZES),
    "tokenizer_config.json": _objects(chat_template=st.text(max_size=3)),
    "adapter_config.json": _objects(base_model_name_or_path=_NAMES),
    "params.json": _objects(
        vision_encoder=_ANYTHING,
        multimodal=_objects(whisper_model_args=_objects(encoder_args=_objects(causal=st.booleans()))),
    ),
    "preprocessor_config.json": _ANYTHING,
}


def _outcome(files: dict[str, Any]) -> ModelCard | BrokenModel:
    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root), {"model.safetensors": b"weights", "1_Pooling/config.json": {}, **files})
        return examine_location(Location("fuzz", root, (str(folder),)), Settings()).outcome


def _assert_judged(outcome: ModelCard | BrokenModel) -> None:
    if isinstance(outcome, BrokenModel):
        assert outcome.reason
        assert "examining its folder failed" not in outcome.reason
        assert outcome.reason.isprintable()
    else:
        assert outcome.evidence
        assert all(each.isprintable() for each in outcome.evidence)
        assert outcome.size_bytes == len(b"weights")
        assert outcome.context_length is None or outcome.context_length > 0


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=_FILES))
def test_wrong_types_everywhere(files: dict[str, Any]) -> None:
    """Every file that is read, with fields right, wrong, absurd or absent."""
    _assert_judged(_outcome({name: json.dumps(content) for name, content in files.items()}))


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(_FILES)), st.binary(max_size=64) | st.binary(max_size=4).map(lambda x: x * 9999)
)
def test_binary_garbage(name: str, content: bytes) -> None:
    """Bytes that are no JSON at all, in each of the files."""
    _assert_judged(_outcome({"config.json": {"architectures": ["BertModel"]}, name: content}))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_cut_off_anywhere(data: st.DataObject) -> None:
    """A file that ends in the middle, as a copy that was broken off leaves it."""
    name = data.draw(st.sampled_from(sorted(_FILES)))
    whole = json.dumps(data.draw(_FILES[name])).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    _assert_judged(_outcome({"config.json": {"architectures": ["BertModel"]}, name: cut}))
