"""A program that stands in for an engine, so that the whole real path runs: nanny, worker, HTTP.

    settings = Settings(engines=EnginesSettings(vllm=VllmSettings(python=fake_python(tmp_path)), ...))
    write_fake_model(models_dir, "org/a", slow_start=0.5)
    write_fake_model(models_dir, "crashes", die_mid_stream=3)

`fake_python` is called exactly like a Python that has an engine (`-m local_llm_worker.vllm_serve MODEL ...`
or `-m local_llm_worker.pooling ...`) and runs `server.py`, which lists all flags and what each answer
tells about the request. Flags come from the model's folder (`fake.json`, what `write_fake_model` writes) or
from the model's `args` in the settings (`--slow-start 0.5`); the latter win.

What it leaves in /dev/shm bears the mark that `tests/conftest.py` put into FAKE_ENGINE_MARK.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any, Literal

from local_llm.engine_settings import EnginesSettings, TransformersSettings, VllmSettings

_SERVER = Path(__file__).with_name("server.py")

_ARCHITECTURES = {
    "chat": "LlamaForCausalLM",
    "base": "LlamaForCausalLM",
    "embedding": "BertModel",
    "reranker": "BertForSequenceClassification",
    "classifier": "BertForSequenceClassification",
    "transcription": "WhisperForConditionalGeneration",
    "vision-language": "Qwen2VLForConditionalGeneration",
}
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def fake_python(folder: Path) -> Path:
    """Writes an executable into `folder` that stands for an engine's Python."""
    script = folder / "fake-python"
    # -I -S: no site-packages, which halves the time to the first answer.
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_SERVER}" "$@"\n')
    script.chmod(0o755)
    return script


def fake_engines(folder: Path, warm: Literal["on", "off"] = "off") -> EnginesSettings:
    """Settings in which every engine is the fake one, by default without warm templates."""
    python = fake_python(folder)
    return EnginesSettings(
        vllm=VllmSettings(python=python, warm=warm),
        transformers=TransformersSettings(python=python, warm=warm),
    )


def write_fake_model(models_dir: Path, name: str, kind: str = "chat", **flags: Any) -> Path:
    """Writes a model folder that the catalogue takes for `kind` and that misbehaves by `flags`.

    Args:
        models_dir: holds the models.
        name: ``name`` or ``org/name``.
        kind: as the catalogue calls it.
        flags: for `server.py`, with underscores: ``slow_start=2``, ``ignore_sigterm=True``.
    """
    folder = models_dir / name
    folder.mkdir(parents=True)
    _write_json(folder / "config.json", _config(kind))
    _write_json(folder / "fake.json", flags)
    tokenizer: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    if kind in ("chat", "vision-language"):
        tokenizer["chat_template"] = _CHAT_TEMPLATE
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "tokenizer.json", {"version": "1.0", "model": {"type": "WordLevel", "vocab": {}}})
    if kind == "embedding":
        _write_sentence_transformer(folder)
    _write_safetensors(folder / "model.safetensors")
    return folder


def _config(kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": "llama" if kind in ("chat", "base") else "bert",
        "max_position_embeddings": 2048,
        "hidden_size": 8,
    }
    labels = {"reranker": 1, "classifier": 3}.get(kind)
    if labels:
        config["num_labels"] = labels
        config["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
    return config


def _write_sentence_transformer(folder: Path) -> None:
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    _write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    _write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
    )


def _write_safetensors(path: Path) -> None:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
