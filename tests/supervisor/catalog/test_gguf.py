"""GGUF: which file is the model, what its metadata says, and files that only claim to be one."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_llm.catalog import gguf
from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.files import Unservable
from local_llm.settings import Settings
from tests.supervisor.catalog.folders import LLAMA, write

LLAMA_KEYS: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.tags": ["chat", "text-generation"],
    "llama.context_length": 8192,
    "llama.rope.sections": [1, 2, 3],
    "tokenizer.ggml.model": "gpt2",
}
TEMPLATE: Mapping[str, Any] = {"tokenizer.chat_template": "{{ messages }}"}


def text(value: str) -> bytes:
    """As GGUF has it: the length, then the bytes."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(of: Any) -> bytes:
    """A value with its type before it: text, a number of 32 bits, or a list of either."""
    if isinstance(of, str):
        return struct.pack("<I", 8) + text(of)
    if isinstance(of, int):
        return struct.pack("<II", 4, of)
    kind = 8 if of and isinstance(of[0], str) else 4
    items = b"".join(text(each) if kind == 8 else struct.pack("<I", each) for each in of)
    return struct.pack("<IIQ", 9, kind, len(of)) + items


def file_of(*parts: Mapping[str, Any]) -> bytes:
    """A file without tensors."""
    pairs = {key: each for part in parts for key, each in part.items()}
    content = b"".join(text(key) + value(each) for key, each in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + content


CHAT = file_of(LLAMA_KEYS, TEMPLATE)


def _look(models_dir: Path, **more: Any) -> tuple[dict[str, ModelCard], dict[str, str]]:
    snapshot = Catalog(Settings(models_dir=models_dir, **more)).snapshot()
    return {card.id: card for card in snapshot.models}, {each.id: each.reason for each in snapshot.broken}


def test_a_folder_and_a_bare_file(tmp_path: Path) -> None:
    """Both are models that transformers runs; config.json beside the file changes nothing."""
    write(tmp_path / "org" / "folder", {"model-Q4_K_M.gguf": CHAT, "config.json": LLAMA, "README.md": "x"})
    write(tmp_path, {"bare.gguf": file_of(LLAMA_KEYS)})
    models, broken = _look(tmp_path)
    assert broken == {}
    folder, bare = models["org/folder"], models["bare"]
    assert (folder.kind, folder.engine, folder.context_length) == (Kind.CHAT, Engine.TRANSFORMERS, 8192)
    assert (folder.path, folder.weights) == (tmp_path / "org" / "folder", ("model-Q4_K_M.gguf",))
    assert folder.size_bytes == len(CHAT)
    assert folder.evidence == (
        "model-Q4_K_M.gguf is GGUF of architecture llama",
        "its metadata has a chat template",
        "vLLM does not run GGUF; transformers' own serve does",
    )
    assert (bare.kind, bare.path, bare.weights) == (Kind.BASE, tmp_path / "bare.gguf", ("bare.gguf",))


def test_the_template_behind_a_vocabulary(tmp_path: Path) -> None:
    """It is found without passing over each of the texts before it, wherever the pieces that are read end."""
    for size in (5_000, 60_000):
        words = {"tokenizer.ggml.tokens": [f"token-{number:07}" for number in range(size)]}
        path = tmp_path / f"{size}.gguf"
        path.write_bytes(file_of(LLAMA_KEYS, words, {"z": 1}, TEMPLATE))
        assert gguf.read_metadata(str(path)).has_template
        path.write_bytes(file_of(LLAMA_KEYS, words, {"z": "tokenizer.chat_template"}))
        assert not gguf.read_metadata(str(path)).has_template


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"], ("m-Q4_K_M.gguf",)),
        (["m-F16.gguf", "m-Q8_0.gguf", "m-Q5_K_S.gguf"], ("m-Q8_0.gguf",)),
        (["m.q6_k.gguf", "m.q3_k.gguf"], ("m.q3_k.gguf",)),
        (["mmproj-m-f16.gguf", "m.imatrix.gguf", "m.gguf"], ("m.gguf",)),
        (
            ["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"],
            ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"),
        ),
    ],
)
def test_the_choice(names: list[str], chosen: tuple[str, ...]) -> None:
    """As llama.cpp chooses; parts are one model, and an image part is none."""
    assert gguf.choose(names).files == chosen


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], "m-00002-of-00003.gguf is missing"),
        (["m-00002-of-00002.gguf"], "the first part of its GGUF files is missing"),
        (["mmproj-m.gguf"], "the first part"),
    ],
)
def test_parts_that_are_missing(names: list[str], reason: str) -> None:
    """A download that is not at its end."""
    with pytest.raises(Unservable, match=f"download incomplete: {reason}"):
        gguf.choose(names)


def test_the_settings_choose(tmp_path: Path) -> None:
    """The evidence says that there are others, and how to choose."""
    files = {"m-Q4_K_M.gguf": CHAT, "m-Q8_0.gguf": CHAT + b"longer"}
    write(tmp_path / "m", files)
    usual = _look(tmp_path)[0]["m"]
    assert usual.weights == ("m-Q4_K_M.gguf",)
    assert "of 2 it is the one served; args: [--gguf-file, NAME] chooses" in usual.evidence
    for args in (["--gguf-file", "m-Q8_0.gguf"], ["--gguf-file=m-Q8_0.gguf"]):
        chosen = _look(tmp_path, models={"m": {"args": args}})[0]["m"]
        assert (chosen.weights, chosen.size_bytes) == (("m-Q8_0.gguf",), len(CHAT) + 6)
    assert "not there" in _look(tmp_path, models={"m": {"args": ["--gguf-file", "no.gguf"]}})[1]["m"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "m.gguf",
            file_of({"general.architecture": "clip"}),
            "transformers does not read GGUF of architecture cl",
        ),
        ("m-00001-of-00001.gguf", CHAT, None),
        ("m-embedding.gguf", CHAT, "GGUF of embedding models and rerankers is not served"),
        ("m.gguf", file_of(LLAMA_KEYS, {"llama.pooling_type": 1}), "GGUF of embedding models"),
        (
            "m.gguf",
            file_of(LLAMA_KEYS, {"general.type": "adapter"}),
            "m.gguf is no model, but of type adapter",
        ),
        ("m.gguf", file_of({"general.name": "x"}), "m.gguf does not say its architecture"),
        ("m.gguf", b"version https://git-lfs", "m.gguf is a Git LFS pointer"),
        (
            "m.gguf",
            b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
            "m.gguf is of a version of GGUF that is not read (1)",
        ),
        ("m.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "m.gguf is of a version of GGUF"),
        ("m.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "m.gguf claims 1152921504606846976 keys"),
        (
            "m.gguf",
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
            "m.gguf claims a text of 46116860184273",
        ),
        ("m.gguf", CHAT[:-5], "m.gguf is damaged or incomplete"),
    ],
)
def test_reasons(tmp_path: Path, name: str, content: bytes, reason: str | None) -> None:
    """What is not served says why; claims of a damaged file are not believed."""
    write(tmp_path, {name: content})
    models, broken = _look(tmp_path)
    if reason is None:
        assert list(models) == ["m"]
    else:
        (found,) = broken.values()
        assert found.startswith(reason)


def test_in_parts(tmp_path: Path) -> None:
    """Transformers reads no parts; a command may, and is given the first."""
    parts = {"m-00001-of-00002.gguf": CHAT, "m-00002-of-00002.gguf": b"more"}
    write(tmp_path / "m", parts)
    assert _look(tmp_path)[1]["m"].startswith("transformers does not read GGUF in 2 parts: join them")
    command = {"engine": "command", "command": ["llama-server", "{path}", "{port}"]}
    card = _look(tmp_path, models={"m": command})[0]["m"]
    assert (card.engine, card.weights) == (Engine.COMMAND, tuple(parts))
    assert card.size_bytes == len(CHAT) + 4


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    """A folder may hold anything under a model's name."""
    (tmp_path / "m").mkdir()
    os.mkfifo(tmp_path / "m" / "m.gguf")
    assert _look(tmp_path)[1]["m"] == "m.gguf is missing or empty"


@settings(deadline=2000, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, len(CHAT)), position=st.integers(4, len(CHAT) - 1), put=st.binary(max_size=9))
def test_damage(tmp_path: Path, cut: int, position: int, put: bytes) -> None:
    """Whatever a file claims: metadata or a reason, at once."""
    path = tmp_path / "m.gguf"
    path.write_bytes((CHAT[:position] + put + CHAT[position + len(put) :])[: max(cut, 4)])
    try:
        told = gguf.read_metadata(str(path)).architecture
    except Unservable as reason:
        told = str(reason).removeprefix("m.gguf ")
    assert told
