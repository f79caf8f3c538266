"""What goes wrong with model folders, done to any specimen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tests.zoo.specimen import Content, Expected, Sparse, Specimen

Files = Mapping[str, Content]
Damage = Callable[[Files], "Files | None"]
"""The damaged files; None where there is nothing of that sort to damage."""

_INDEX = "model.safetensors.index.json"
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4976698672\n"


def _text(content: Content) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _other(name: str, change: Callable[[Content], Content]) -> Damage:
    """Another content of one file; None takes it away."""

    def damage(files: Files) -> Files | None:
        if name not in files:
            return None
        changed = {**files, name: change(files[name])}
        return {key: value for key, value in changed.items() if value is not None}

    return damage


def _half(content: Content) -> Content:
    text = _text(content)
    return text[: len(text) // 2]


def _tokenizer_config_cut(files: Files) -> Files | None:
    """Where the chat template is in a file of its own, the engine is the first to read this one."""
    return None if "chat_template.jinja" in files else _other("tokenizer_config.json", _half)(files)


def _weights(files: Files) -> list[str]:
    return sorted(name for name in files if name.startswith("model") and name.endswith(".safetensors"))


def _last_weights(change: Callable[[Content], Content]) -> Damage:
    def damage(files: Files) -> Files | None:
        names = _weights(files)
        return _other(names[-1], change)(files) if names else None

    return damage


def _unknown_shard(files: Files) -> Files | None:
    index = files.get(_INDEX)
    if not isinstance(index, dict):
        return None
    weight_map = {**index["weight_map"], "model.extra.weight": "model-00099-of-00099.safetensors"}
    return {**files, _INDEX: {**index, "weight_map": weight_map}}


def _shard_outside(files: Files) -> Files | None:
    index = files.get(_INDEX)
    if not isinstance(index, dict):
        return None
    return {**files, _INDEX: {**index, "weight_map": dict.fromkeys(index["weight_map"], "../../etc/passwd")}}


def _download_begun(files: Files) -> Files | None:
    """As `hf download` leaves it when it is broken off: the small files are there, the last weights not."""
    names = _weights(files)
    if not names:
        return None
    rest = {name: content for name, content in files.items() if name != names[-1]}
    return {**rest, ".cache/huggingface/download/Zm9v.0123.incomplete": b"partial"}


def _aria2(files: Files) -> Files | None:
    names = _weights(files)
    return {**files, f"{names[-1]}.aria2": b"\0\1"} if names else None


def _cut(content: Content) -> Content:
    """The file ends within its tensors, as a copy that was broken off leaves it."""
    return replace(content, size_bytes=content.size_bytes // 2) if isinstance(content, Sparse) else b"w"


def _cut_header(content: Content) -> Content:
    if not isinstance(content, Sparse):
        return b"w"
    half = content.start[: len(content.start) // 2]
    return Sparse(half, len(half))


def _absurd_header(content: Content) -> Content:
    """A header that says it is 2^60 bytes long."""
    return b"\0\0\0\0\0\0\0\x10" + b"{" * 2000 if isinstance(content, Sparse) else b"w"


DAMAGES: Mapping[str, tuple[Damage, str]] = {
    "config cut": (_other("config.json", _half), "config.json is not valid json"),
    "config empty": (_other("config.json", lambda _: ""), "config.json is not valid json"),
    "config a list": (_other("config.json", lambda _: []), "config.json is not a json object"),
    "config nested": (_other("config.json", lambda _: "[" * 100_000), "config.json is nested too deeply"),
    "config a pointer": (_other("config.json", lambda _: _POINTER), "config.json"),
    "config of UTF-16": (
        _other("config.json", lambda said: _text(said).encode("utf-16")[:-1]),
        "config.json",
    ),
    "index cut": (_other(_INDEX, _half), "index.json is not valid json"),
    "index empty": (_other(_INDEX, lambda _: {}), "has no weight_map"),
    "index of more": (_unknown_shard, "model-00099-of-00099.safetensors"),
    "index of others' files": (_shard_outside, "not a file of this folder"),
    "shard missing": (_last_weights(lambda _: None), ""),
    "shard empty": (_last_weights(lambda _: b""), "missing or empty"),
    "shard a pointer": (_last_weights(lambda _: _POINTER), "git lfs"),
    "download begun": (_download_begun, "download incomplete"),
    "download by aria2": (_aria2, "missing or empty"),
    "tokenizer empty": (_other("tokenizer.json", lambda _: b""), "tokenizer.json"),
    "tokenizer a pointer": (_other("tokenizer.json", lambda _: _POINTER), "tokenizer.json"),
    "tokenizer_config cut": (
        _tokenizer_config_cut,
        "tokenizer_config.json is not valid json",
    ),
    "modules cut": (_other("modules.json", _half), "modules.json is not valid json"),
    "pooling missing": (_other("1_Pooling/config.json", lambda _: None), "pooling"),
    "adapter cut": (_other("adapter_config.json", _half), "adapter_config.json is not valid json"),
}
"""What is done, and a part of the reason in lower case: the folder cannot be served."""

HEADERS: Mapping[str, Damage] = {
    "cut": _last_weights(_cut),
    "header cut": _last_weights(_cut_header),
    "header absurd": _last_weights(_absurd_header),
}
"""Damage that is only seen when the weights themselves are looked into, which a scan does not."""


def variants(specimen: Specimen) -> Iterator[Specimen]:
    """Each damage that can be done to it."""
    for title, (damage, reason) in DAMAGES.items():
        files = damage(specimen.files)
        if files is not None:
            model_id = f"{specimen.id}--{title.replace(' ', '-')}".replace("'", "")
            yield Specimen(model_id, files, Expected(None, reason=reason), specimen.family)
