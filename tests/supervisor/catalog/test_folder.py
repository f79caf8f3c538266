"""What a folder's files say, and what is wrong with a folder that cannot be served."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import BrokenModel, Engine, Kind, ModelCard
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.settings import ModelSettings, Settings
from tests.supervisor.catalog.folders import (
    BERT,
    LLAMA,
    POOLING,
    TEMPLATE,
    chat_model,
    embedding_model,
    sharded,
    write,
)


def _look(folder: Path, **settings: Any) -> ModelCard | BrokenModel:
    location = Location(folder.name, str(folder), (str(folder),))
    return examine_location(location, Settings(models_dir=folder.parent, **settings)).outcome


def _card(folder: Path, **settings: Any) -> ModelCard:
    outcome = _look(folder, **settings)
    assert isinstance(outcome, ModelCard), outcome
    return outcome


def _reason(folder: Path) -> str:
    outcome = _look(folder)
    assert isinstance(outcome, BrokenModel), outcome
    return outcome.reason


def test_chat_model(tmp_path: Path) -> None:
    """Everything that the card says comes from the folder."""
    folder = chat_model(tmp_path / "Smol")
    os.utime(folder / "config.json", (1_700_000_000, 1_700_000_000))
    card = _card(folder)
    assert (card.id, card.path, card.kind) == ("Smol", folder, Kind.CHAT)
    assert card.evidence == (
        "architectures[0] is LlamaForCausalLM",
        "tokenizer_config.json has a chat template",
    )
    assert (card.size_bytes, card.context_length, card.created) == (7, 4096, 1_700_000_000)
    assert card.architecture == "LlamaForCausalLM"


def test_embedding_model_takes_its_length_from_sentence_transformers(tmp_path: Path) -> None:
    """sentence_bert_config.json limits an embedding model below its positions."""
    card = _card(embedding_model(tmp_path / "minilm"))
    assert (card.kind, card.context_length) == (Kind.EMBEDDING, 256)


@pytest.mark.parametrize(
    ("files", "evidence"),
    [
        ({"chat_template.jinja": "{{ x }}"}, "chat_template.jinja is there"),
        ({"chat_template.json": TEMPLATE}, "chat_template.json has a chat template"),
        ({"additional_chat_templates/tools.jinja": "x"}, "additional_chat_templates/ is there"),
        ({"params.json": {}, "consolidated.safetensors": b"w"}, "Mistral's own files"),
    ],
)
def test_where_chat_templates_hide(tmp_path: Path, files: Mapping[str, object], evidence: str) -> None:
    """Each place makes a language model a chat model."""
    folder = write(tmp_path / "m", {"config.json": LLAMA, "model.safetensors": b"w", **files})
    card = _card(folder)
    assert card.kind is Kind.CHAT
    assert evidence in "\n".join(card.evidence)


def test_settings_bring_the_template(tmp_path: Path) -> None:
    """A --chat-template among the model's arguments counts."""
    folder = chat_model(tmp_path / "m", **{"tokenizer_config.json": {}})
    assert _card(folder).kind is Kind.BASE
    for args in (("--chat-template", "x.jinja"), ("--chat-template=x.jinja",)):
        assert _card(folder, models={"m": ModelSettings(args=args)}).kind is Kind.CHAT


@pytest.mark.parametrize(
    ("name", "more", "kind", "parser"),
    [
        ("Mistral-Small-3.2", {"tekken.json": {}}, Kind.BASE, None),
        ("Mistral-7B-v0.3", {"consolidated.safetensors": b"w", "tokenizer_config.json": {}}, Kind.BASE, None),
        (
            "Mistral-7B-Instruct-v0.3",
            {"consolidated.safetensors": b"w", "tokenizer_config.json": {}},
            Kind.CHAT,
            "mistral",
        ),
        (
            "Devstral-Small-2507",
            {"consolidated.safetensors": b"w", "tokenizer_config.json": {}},
            Kind.CHAT,
            "mistral",
        ),
        ("Mistral-Small-3.2", {"consolidated.safetensors": b"w"}, Kind.CHAT, "mistral"),
    ],
)
def test_mistrals_files_beside_those_of_transformers(
    tmp_path: Path, name: str, more: Mapping[str, object], kind: Kind, parser: str | None
) -> None:
    """vLLM looks for consolidated weights only; a base model's tokenizer has no template in either format."""
    config = {"architectures": ["MistralForCausalLM"]}
    files = {"config.json": config, "model.safetensors": b"w", "params.json": {}, **more}
    card = _card(write(tmp_path / name, files))
    assert card.kind is kind
    assert (card.family.tool_call_parser if card.family else None) == parser


def test_a_model_that_reads_no_text_has_no_tokenizer(tmp_path: Path) -> None:
    """Any file of a tokenizer makes it one for text; the names of its class are not all known."""
    files = {"config.json": {"architectures": ["NewModel"]}, "model.safetensors": b"w"}
    folder = write(tmp_path / "m", files)
    assert _reason(folder).startswith("there is no tokenizer")
    assert _card(write(folder, {"tokenizer.json": {}})).kind is Kind.EMBEDDING


def test_an_encoder_without_an_architecture(tmp_path: Path) -> None:
    """Its model_type tells, as Bio_ClinicalBERT's does."""
    folder = write(tmp_path / "m", {"config.json": {"model_type": "bert"}, "model.safetensors": b"w"})
    card = _card(folder)
    assert (card.kind, card.engine) == (Kind.EMBEDDING, Engine.TRANSFORMERS)


def test_mistral_format_without_config_json(tmp_path: Path) -> None:
    """vLLM serves params.json with consolidated weights."""
    folder = write(
        tmp_path / "Devstral",
        {"params.json": {"max_seq_len": 32768}, "tekken.json": {}, "consolidated.safetensors": b"weights"},
    )
    card = _card(folder)
    assert (card.kind, card.context_length, card.size_bytes) == (Kind.CHAT, 32768, 7)


def test_duplicates_are_counted_once(tmp_path: Path) -> None:
    """Safetensors are loaded; the same weights as pickles or in Mistral's format are not counted."""
    folder = chat_model(
        tmp_path / "m",
        **{
            "pytorch_model.bin": b"twice",
            "consolidated.safetensors": b"thrice",
            "adapter_model.safetensors": b"w",
        },
    )
    card = _card(folder)
    assert card.size_bytes == 7
    assert "its weights are Python pickles (.bin), not safetensors" not in card.evidence


def test_pickles_alone_are_served_only_if_they_may_be(tmp_path: Path) -> None:
    """They can run code: the reason says how to allow them, and then the evidence says what they are."""
    folder = write(tmp_path / "old", {"config.json": BERT, "pytorch_model.bin": b"12345"})
    reason = _reason(folder)
    assert "only pickled weights (pytorch_model.bin)" in reason
    assert 'models: {"old": {allow_pickle: true}}' in reason
    card = _card(folder, models={"o*": ModelSettings(allow_pickle=True)})
    assert card.size_bytes == 5
    assert "its weights are Python pickles (.bin), not safetensors" in card.evidence


@pytest.mark.parametrize("preparation", ["preprocessor_config.json", "processor_config.json"])
def test_what_takes_images_shows_it(tmp_path: Path, preparation: str) -> None:
    """A part for images in config.json, and the file that says how they are prepared."""
    config = {"architectures": ["NewVLForConditionalGeneration"], "vision_config": {"depth": 2}}
    folder = chat_model(tmp_path / "vl", **{"config.json": config, preparation: {}})
    card = _card(folder)
    assert card.kind is Kind.VISION_LANGUAGE
    assert f"config.json has a part for images, and {preparation} is there" in card.evidence
    (folder / preparation).unlink()
    assert _card(folder).kind is Kind.CHAT


@pytest.mark.parametrize(
    ("params", "kind", "architecture"),
    [
        (
            {"dim": 8, "vision_encoder": {"hidden_size": 8}},
            Kind.VISION_LANGUAGE,
            "PixtralForConditionalGeneration",
        ),
        (
            {"multimodal": {"whisper_model_args": {"encoder_args": {"dim": 8}}}},
            Kind.CHAT,
            "VoxtralForConditionalGeneration",
        ),
        (
            {"multimodal": {"whisper_model_args": {"encoder_args": {"dim": 8, "causal": True}}}},
            Kind.TRANSCRIPTION,
            "VoxtralRealtimeGeneration",
        ),
        ({"dim": 8, "multimodal": 7}, Kind.CHAT, None),
    ],
)
def test_mistrals_format_is_multimodal_too(
    tmp_path: Path, params: dict[str, Any], kind: Kind, architecture: str | None
) -> None:
    """params.json has no class, and vLLM makes one of what it has."""
    files = {"params.json": params, "tekken.json": {}, "consolidated.safetensors": b"weights"}
    card = _card(write(tmp_path / "m", files))
    assert (card.kind, card.architecture) == (kind, architecture)


def test_a_part_of_a_diffusion_pipeline(tmp_path: Path) -> None:
    """A folder of its own, such as unet/, says by its class that it is no model by itself."""
    config = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30.0"}
    folder = write(tmp_path / "unet", {"config.json": config, "diffusion_pytorch_model.safetensors": b"w"})
    assert "part of a diffusion pipeline (UNet2DConditionModel)" in _reason(folder)


def test_the_settings_choose_a_kind(tmp_path: Path) -> None:
    """The card has it, the engine follows, and the evidence says whose word it is."""
    card = _card(chat_model(tmp_path / "m"), models={"m": ModelSettings(kind=Kind.EMBEDDING)})
    assert (card.kind, card.engine) == (Kind.EMBEDDING, Engine.TRANSFORMERS)
    assert "the settings choose embedding as its kind" in card.evidence


def test_all_shards_are_counted(tmp_path: Path) -> None:
    """The size of a sharded model is that of its shards."""
    assert _card(sharded(tmp_path / "m", present=4)).size_bytes == 4 * len(b"shard")


def test_leftovers_of_another_export_do_not_matter(tmp_path: Path) -> None:
    """Without an index, one complete numbered set is enough."""
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00000-of-00002.bin"]
    allowed = {"m": ModelSettings(allow_pickle=True)}
    folder = write(tmp_path / "m", {"config.json": BERT, **dict.fromkeys(names, b"1")})
    assert _card(folder, models=allowed).size_bytes == 2
    write(folder, {"pytorch_model-00001-of-00009.bin": b"1"})
    assert _card(folder, models=allowed).size_bytes == 2


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    """Weights, tokenizer and module files count; a README does not."""
    folder = embedding_model(tmp_path / "m")
    seen = [_card(folder).fingerprint]
    for name in ("model.safetensors", "tokenizer.json", "1_Pooling/config.json"):
        write(folder, {name: f"[{len(seen) * '1,'}1]"})
        seen.append(_card(folder).fingerprint)
    assert len(set(seen)) == 4
    write(folder, {"README.md": "hello"})
    assert _card(folder).fingerprint == seen[-1]


_WHOLE = {"config.json": LLAMA, "model.safetensors": b"w"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.safetensors": b"w"}, "config.json is missing"),
        ({"config.json": LLAMA}, "it has no weight files"),
        ({**_WHOLE, "config.json": "{"}, "config.json is not valid JSON"),
        ({**_WHOLE, "config.json": b"\xff\xfe\x00\xd8"}, "config.json is not valid JSON"),
        ({**_WHOLE, "config.json": "[]"}, "config.json is not a JSON object"),
        ({**_WHOLE, "config.json": '{"a":' * 100_000}, "config.json is nested too deeply"),
        ({**_WHOLE, "config.json": f'{{"a": {"1" * 5000}}}'}, "config.json is not valid JSON"),
        ({**_WHOLE, "config.json": b" " * (5 << 20)}, "config.json is larger than 4 MiB"),
        ({**_WHOLE, "tokenizer_config.json": "nonsense"}, "tokenizer_config.json is not valid JSON"),
        ({**_WHOLE, "model.safetensors": b""}, "1 of 1 weight file is missing or empty: model.safetensors"),
        (
            {**_WHOLE, "model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid x\n"},
            "model.safetensors is a Git LFS pointer, not the file itself: run `git lfs pull`",
        ),
        ({**_WHOLE, "model.safetensors.index.json": {}}, "model.safetensors.index.json has no weight_map"),
        (
            {**_WHOLE, "model.safetensors.index.json": {"weight_map": {"a": "../../etc/passwd"}}},
            "model.safetensors.index.json names something that is not a file of this folder",
        ),
        (
            {**_WHOLE, "model.safetensors.index.json": {"weight_map": {"a": ["b"], "c": "\0"}}},
            "model.safetensors.index.json names something that is not a file of this folder",
        ),
        (
            {
                **_WHOLE,
                "model.safetensors.index.json": {"weight_map": {str(n): str(n) for n in range(10_001)}},
            },
            "model.safetensors.index.json names 10001 shards",
        ),
        (
            {"config.json": LLAMA, "model-00002-of-00003.safetensors": b"1"},
            "2 of 3 shards are missing or empty: model-00001-of-00003.safetensors, model-00003-of-00003.safe",
        ),
        ({**_WHOLE, "modules.json": POOLING}, "modules.json names a Pooling folder that is missing"),
        (
            {**_WHOLE, "modules.json": POOLING, "1_Pooling/README.md": "x"},
            "1_Pooling/config.json is missing, which modules.json needs",
        ),
        ({"model_index.json": {}, "unet/model.safetensors": b"w"}, "it is a diffusion pipeline"),
        (
            {"adapter_config.json": {"base_model_name_or_path": "a/base"}, "adapter_model.safetensors": b"w"},
            "it is an adapter of type None; only LoRA is served",
        ),
        ({"config.json": LLAMA, "adapter_model.safetensors": b"w"}, "it has only an adapter's weights"),
        ({"model-Q4.gguf": b"w"}, "model-Q4.gguf is damaged or incomplete"),
        ({"config.json": LLAMA, "model-Q4.gguf": b"what"}, "model-Q4.gguf is not a GGUF file"),
        ({"config.json": BERT, "onnx/model.onnx": b"w"}, "it has only ONNX weights (onnx/)"),
        ({"config.json": BERT, "tf_model.h5": b"w"}, "it has only TensorFlow weights (tf_model.h5)"),
        (
            {**_WHOLE, "config.json": {"architectures": ["VitsModel"]}},
            "VitsModel is made for speech synthesis, which is not served",
        ),
    ],
)
def test_reasons(tmp_path: Path, files: Mapping[str, object], reason: str) -> None:
    """A folder that cannot be served says what is wrong with it."""
    assert _reason(write(tmp_path / "m", files)).startswith(reason)


def test_reasons_are_clean_text(tmp_path: Path) -> None:
    """A reason goes into JSON: neither a file's name nor a field makes it unprintable or endless."""
    assert _reason(write(tmp_path / "a", {"config.json": LLAMA, os.fsdecode(b"\xff\n.gguf"): b"w"})) == (
        "a GGUF file's name holds characters that cannot be printed: rename it"
    )
    adapter = {"adapter_config.json": {"base_model_name_or_path": "b" * 10_000}}
    assert len(_reason(write(tmp_path / "b", adapter))) < 1000


def test_missing_shards_are_named(tmp_path: Path) -> None:
    """Some shards are named, the rest counted."""
    some = "model-00003-of-00004.safetensors, model-00004-of-00004.safetensors"
    assert _reason(sharded(tmp_path / "m", present=2)) == f"2 of 4 shards are missing or empty: {some}"
    assert _reason(sharded(tmp_path / "n", present=1, of=9)).endswith("00005-of-00009.safetensors and 4 more")


def test_a_dangling_link_is_a_missing_file(tmp_path: Path) -> None:
    """A link to nothing is not a shard."""
    folder = sharded(tmp_path / "m", present=3)
    (folder / "model-00004-of-00004.safetensors").symlink_to(tmp_path / "gone")
    assert _reason(folder).startswith("1 of 4 shards")


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    """config.json may be anything but a file."""
    folder = write(tmp_path / "m", {"model.safetensors": b"w"})
    os.mkfifo(folder / "config.json")
    assert _reason(folder) == "config.json is not a regular file"


@pytest.mark.parametrize(
    "mark", [".cache/huggingface/download/x.incomplete", "model-00002.safetensors.incomplete", "x.part"]
)
def test_an_unfinished_download(tmp_path: Path, mark: str) -> None:
    """A missing file beside a downloader's mark is a download, not damage."""
    folder = write(sharded(tmp_path / "m", present=1), {mark: b"half"})
    assert _reason(folder).startswith("download incomplete: 3 of 4 shards are missing")


def test_an_unfinished_download_without_a_tokenizer(tmp_path: Path) -> None:
    """Weights that came first do not make a model, as long as more is on its way."""
    folder = write(tmp_path / "m", {**_WHOLE, ".cache/huggingface/download/x.incomplete": b"half"})
    assert _reason(folder) == "download incomplete: it has no tokenizer yet"


def test_a_stale_download_mark_does_not_hide_a_complete_model(tmp_path: Path) -> None:
    """What is complete is served, whatever else was begun."""
    folder = write(chat_model(tmp_path / "m"), {".cache/huggingface/download/x.incomplete": b"half"})
    assert _card(folder).kind is Kind.CHAT


def test_aria2_gives_the_full_size_at_once(tmp_path: Path) -> None:
    """A file whose control file is still there is not done, however large it looks."""
    folder = write(chat_model(tmp_path / "m"), {"model.safetensors.aria2": b"control"})
    assert _reason(folder).startswith("download incomplete: 1 of 1 weight file")
