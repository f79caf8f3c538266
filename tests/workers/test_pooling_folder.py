"""What a folder's files say of its kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Folder, Kind

POOLING = [
    {"type": "sentence_transformers.models.Transformer"},
    {"type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
]
OLD_POOLING = [
    {"type": "sentence_transformers.models.Transformer"},
    {"type": "sentence_transformers.models.Pooling"},
]
LOGIT_SCORE = [{"type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"}]


def folder_with(path: Path, **files: Any) -> Folder:
    """A model folder that holds these JSON files."""
    path.mkdir()
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return Folder(path)


def architecture(name: str, **fields: Any) -> dict[str, Any]:
    """A config.json."""
    return {"architectures": [name], **fields}


@pytest.mark.parametrize(
    ("name", "files", "kind"),
    [
        (
            "by-type",
            {"config": architecture("X"), "config_sentence_transformers": {"model_type": "CrossEncoder"}},
            Kind.RERANKER,
        ),
        ("logits", {"config": architecture("Qwen3ForCausalLM"), "modules": LOGIT_SCORE}, Kind.RERANKER),
        ("pooled", {"config": architecture("Qwen3ForCausalLM"), "modules": POOLING}, Kind.EMBEDDING),
        ("pooled", {"config": architecture("BertModel"), "modules": OLD_POOLING}, Kind.EMBEDDING),
        (
            "one-label",
            {"config": architecture("XLMRobertaForSequenceClassification", id2label={"0": "LABEL_0"})},
            Kind.RERANKER,
        ),
        ("one-label", {"config": architecture("BertForSequenceClassification", num_labels=1)}, Kind.RERANKER),
        ("two-labels", {"config": architecture("BertForSequenceClassification")}, Kind.CLASSIFIER),
        (
            "nli",
            {
                "config": architecture(
                    "BertForSequenceClassification",
                    id2label={"0": "a", "1": "b", "2": "c"},
                    sentence_transformers={"activation_fn": "torch.nn.Identity"},
                ),
                "config_sentence_transformers": {"model_type": "CrossEncoder"},
            },
            Kind.CLASSIFIER,
        ),
        ("encoder", {"config": architecture("BertModel")}, Kind.EMBEDDING),
        ("my-Reranker-copy", {"config": architecture("Qwen3ForCausalLM")}, Kind.RERANKER),
    ],
)
def test_kind(tmp_path: Path, name: str, files: dict[str, Any], kind: Kind) -> None:
    """Content first, the name only for copies that say nothing."""
    assert folder_with(tmp_path / name, **files).kind() is kind


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (architecture("LlamaForCausalLM"), "--kind"),
        ({"model_type": "bert"}, "no architecture"),
    ],
)
def test_no_kind(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    """What shows no sign of being served here is told how it can be served nevertheless."""
    with pytest.raises(ModelRefused, match=reason):
        folder_with(tmp_path / "model", config=config).kind()


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b""])
def test_broken_config(tmp_path: Path, content: bytes) -> None:
    """A config.json that is no JSON object is named."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"config\.json"):
        Folder(tmp_path)
