"""Model folders as they are found in the wild, with a few bytes for weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

LLAMA = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
BERT = {"architectures": ["BertModel"], "max_position_embeddings": 512}
TEMPLATE = {"chat_template": "{{ messages }}"}
POOLING = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]

Content = object


def write(folder: Path, files: Mapping[str, Content]) -> Path:
    """Writes files: bytes and text as they are, anything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def chat_model(folder: Path, **more: Content) -> Path:
    """A complete chat model in one weight file."""
    return write(
        folder,
        {
            "config.json": LLAMA,
            "tokenizer.json": {},
            "tokenizer_config.json": TEMPLATE,
            "model.safetensors": b"weights",
            **more,
        },
    )


def embedding_model(folder: Path) -> Path:
    """A complete sentence-transformers folder."""
    return write(
        folder,
        {
            "config.json": BERT,
            "modules.json": POOLING,
            "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
            "sentence_bert_config.json": {"max_seq_length": 256},
            "tokenizer.json": {},
            "model.safetensors": b"weights",
        },
    )


def sharded(folder: Path, *, present: int, of: int = 4) -> Path:
    """A chat model whose index names `of` shards, the first `present` of which are there."""
    shards = [f"model-{number:05}-of-{of:05}.safetensors" for number in range(1, of + 1)]
    return write(
        folder,
        {
            "config.json": LLAMA,
            "tokenizer_config.json": TEMPLATE,
            "model.safetensors.index.json": {
                "weight_map": {f"layers.{number}": name for number, name in enumerate(shards)}
            },
            **dict.fromkeys(shards[:present], b"shard"),
        },
    )


def hub_snapshot(root: Path, repo: str, revision: str, files: Mapping[str, Content], *, main: bool) -> Path:
    """A revision in the Hugging Face cache layout: files are links to blobs."""
    top = root / f"models--{repo.replace('/', '--')}"
    blobs = write(top / "blobs", {f"{revision}-{name}": content for name, content in files.items()})
    snapshot = top / "snapshots" / revision
    snapshot.mkdir(parents=True, exist_ok=True)
    for name in files:
        (snapshot / name).symlink_to(blobs / f"{revision}-{name}")
    if main:
        write(top / "refs", {"main": revision})
    return snapshot


CHAT_FILES: Mapping[str, Content] = {
    "config.json": LLAMA,
    "tokenizer.json": {},
    "tokenizer_config.json": TEMPLATE,
    "model.safetensors": b"weights",
}
