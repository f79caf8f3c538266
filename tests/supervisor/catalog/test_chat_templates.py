"""Where a folder's chat templates are found, and what they say of thinking."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import BrokenModel, Kind, ModelCard
from local_llm.catalog.catalog import Catalog
from local_llm.catalog.chat_templates import Thinks, generation_prompt, plain, thinks
from local_llm.catalog.records import examine_location
from local_llm.catalog.walk import Location
from local_llm.settings import Settings
from tests.supervisor.catalog import chat_template_texts as texts
from tests.supervisor.catalog.folders import POOLING, write

QWEN_3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
TOOLS = texts.JSON_TOOLS + texts.ANSWERS
THINKING = texts.JSON_TOOLS + texts.SWITCH_OFF


def _folder(folder: Path, **files: Any) -> Path:
    base: dict[str, Any] = {"config.json": QWEN_3, "tokenizer.json": {}, "model.safetensors": b"weights"}
    return write(folder, {**base, **files})


def _look(folder: Path, **settings: Any) -> ModelCard | BrokenModel:
    location = Location(folder.name, str(folder), (str(folder),))
    return examine_location(location, Settings(models_dir=folder.parent, **settings)).outcome


def _card(folder: Path, **settings: Any) -> ModelCard:
    outcome = _look(folder, **settings)
    assert isinstance(outcome, ModelCard), outcome
    return outcome


def _parsers(card: ModelCard) -> tuple[str | None, str | None]:
    return (card.family.tool_call_parser, card.family.reasoning_parser) if card.family else (None, None)


PLACES: list[dict[str, Any]] = [
    {"chat_template.jinja": THINKING},
    {"chat_template.jinja": THINKING, "tokenizer_config.json": {"chat_template": TOOLS}},
    {"tokenizer_config.json": {"chat_template": THINKING}},
    {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": THINKING}]}},
    {"chat_template.json": {"chat_template": THINKING}, "tokenizer_config.json": {}},
    # The template for images has no tools, the tokenizer's has: Qwen2.5-VL.
    {
        "chat_template.json": {"chat_template": texts.HISTORY},
        "tokenizer_config.json": {"chat_template": THINKING},
    },
    {"additional_chat_templates/tool_use.jinja": THINKING},
    {"chat_template.jinja": texts.HISTORY, "additional_chat_templates/tool_use.jinja": THINKING},
]


@pytest.mark.parametrize("files", PLACES)
def test_places(files: dict[str, Any], tmp_path: Path) -> None:
    """Wherever the template is, its markers are found."""
    card = _card(_folder(tmp_path / "Qwen3-8B", **files))
    assert card.kind is Kind.CHAT
    assert _parsers(card) == ("hermes", "qwen3")


@pytest.mark.parametrize(
    "template",
    [
        None,
        "",
        7,
        {},
        [],
        [7],
        [{"name": "default"}],
        [{"template": 7}],
        "{{ messages }}",
        "{# <tool_call> #}",
    ],
)
def test_nothing_to_be_found(template: object, tmp_path: Path) -> None:
    """No template, or one that tells nothing: no flags, whatever the file holds."""
    assert (
        _card(_folder(tmp_path / "m", **{"tokenizer_config.json": {"chat_template": template}})).family
        is None
    )


def test_response_template(tmp_path: Path) -> None:
    """Found beside a template file too, and only if vLLM can serve all of its fields."""
    fields: dict[str, Any] = {"content": {}, "tool_calls": {}, "thinking": {}}
    for content, expected in (
        (fields, "hf"),
        ({**fields, "citations": {}}, "hermes"),
        ({}, "hermes"),
        (7, "hermes"),
    ):
        config = {"response_template": {"fields": content}}
        folder = _folder(tmp_path / "m", **{"chat_template.jinja": TOOLS, "tokenizer_config.json": config})
        assert _parsers(_card(folder))[0] == expected
    folder = _folder(tmp_path / "n", **{"tokenizer_config.json": {**config, "chat_template": TOOLS}})
    assert _parsers(_card(folder))[0] == "hermes"


def test_damaged_file_beside_the_template(tmp_path: Path) -> None:
    """It is not decoded, since nothing in it is looked for; the engine is its judge."""
    files = {"chat_template.jinja": TOOLS, "tokenizer_config.json": '{"response_template": '}
    assert _parsers(_card(_folder(tmp_path / "m", **files))) == ("hermes", None)


def test_settings_give_a_template(tmp_path: Path) -> None:
    """It counts in place of the folder's; a file, or the template itself."""
    folder = _folder(tmp_path / "models" / "m", **{"chat_template.jinja": texts.HISTORY})
    file = tmp_path / "mine.jinja"
    file.write_text(THINKING)
    assert _card(folder).family is None
    for args in (["--chat-template", str(file)], [f"--chat_template={file}"], ["--chat-template", THINKING]):
        assert _parsers(_card(folder, models={"m": {"args": args}})) == ("hermes", "qwen3")
    engine = {"vllm": {"args": ["--chat-template", str(file)]}}
    assert _parsers(_card(folder, engines=engine)) == ("hermes", "qwen3")


def test_settings_give_a_template_that_is_not_there(tmp_path: Path) -> None:
    """Nothing is known of it; vLLM will say what is wrong."""
    folder = _folder(tmp_path / "m", **{"chat_template.jinja": THINKING})
    card = _card(folder, models={"m": {"args": ["--chat-template", "/nowhere/t.jinja"]}})
    assert (card.kind, card.family) == (Kind.CHAT, None)


def test_base_model_with_a_template_from_the_settings(tmp_path: Path) -> None:
    """It chats, by that template's format."""
    folder = _folder(tmp_path / "m")
    assert _card(folder).kind is Kind.BASE
    card = _card(folder, models={"m": {"args": ["--chat-template", TOOLS]}})
    assert (card.kind, _parsers(card)) == (Kind.CHAT, ("hermes", None))
    assert "the settings give --chat-template" in card.evidence


def test_chat_format_of_vllm_itself(tmp_path: Path) -> None:
    """DeepSeek-V3.2 has no template and chats."""
    config = {"architectures": ["DeepseekV32ForCausalLM"]}
    card = _card(_folder(tmp_path / "DeepSeek-V3.2", **{"config.json": config}))
    assert (card.kind, _parsers(card)) == (Kind.CHAT, ("deepseek_v32", "deepseek_v3"))
    assert "vLLM has the chat format of the family DeepSeek-V3.2 built in" in card.evidence
    assert _card(_folder(tmp_path / "DeepSeek-V3.2-Base", **{"config.json": config})).kind is Kind.BASE


def test_embedding_models_have_no_family(tmp_path: Path) -> None:
    """They are made from language models, template and all."""
    files = {"chat_template.jinja": THINKING, "modules.json": POOLING, "1_Pooling/config.json": {}}
    card = _card(_folder(tmp_path / "Qwen3-Embedding", **files))
    assert (card.kind, card.family) == (Kind.EMBEDDING, None)


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "mine.jinja"]
)
def test_a_changed_template_is_noticed(name: str, tmp_path: Path) -> None:
    """In the folder, or where the settings say."""
    folder = _folder(tmp_path / "models" / "m", **{"chat_template.jinja": texts.HISTORY, name: TOOLS})
    args = ["--chat-template", str(folder / name)] if name == "mine.jinja" else []
    catalog = Catalog(Settings(models_dir=tmp_path / "models", models={"m": {"args": args}}))
    assert _parsers(catalog.find("m")) == ("hermes", None)
    (folder / name).write_text(THINKING)
    os.utime(folder / name, (1, 1))
    assert _parsers(catalog.find("m")) == ("hermes", "qwen3")


@pytest.mark.parametrize("link", ["/dev/zero", "/nowhere"])
def test_what_is_no_file_is_not_read(link: str, tmp_path: Path) -> None:
    """A named template that would never end, or is not there."""
    folder = _folder(tmp_path / "m", **{"chat_template.jinja": TOOLS})
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "endless.jinja").symlink_to(link)
    assert _parsers(_card(folder)) == ("hermes", None)


def test_a_template_without_end(tmp_path: Path) -> None:
    """Of a file of gigabytes, only the beginning is read."""
    folder = _folder(tmp_path / "m", **{"chat_template.jinja": TOOLS})
    os.truncate(folder / "chat_template.jinja", 8 << 30)
    assert _parsers(_card(folder)) == ("hermes", None)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (texts.ANSWERS, Thinks.NEVER),
        (texts.STRIPS_THOUGHTS + texts.ANSWERS, Thinks.NEVER),
        (texts.ALWAYS_THINKS, Thinks.ALWAYS),
        (texts.SWITCH_OFF, Thinks.ON),
        (texts.SWITCH_OFF_ELSE_OPEN, Thinks.ON),
        (texts.SWITCH_ON, Thinks.OFF),
        (texts.ON_BY_DEFAULT, Thinks.ON),
        (texts.OFF_UNLESS_SET, Thinks.OFF),
        (texts.GLM_PROMPT, Thinks.ON),
        (texts.DEEPSEEK_V31, Thinks.OFF),
        (texts.KIMI_K2_THINKING, Thinks.NEVER),
        ("{%- set enable_thinking = enable_thinking | default(true) %}" + texts.OFF_UNLESS_SET, Thinks.ON),
        (
            "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{% endif %}"
            + texts.OFF_UNLESS_SET,
            Thinks.ON,
        ),
        ("{{- '<|im_start|>assistant\\n<think>\\n' if add_generation_prompt }}", Thinks.ALWAYS),
        ("{{ '<seed:think>' if add_generation_prompt }}", Thinks.ALWAYS),
        (texts.prompt("<think></think>"), Thinks.NEVER),
        ("<think>", Thinks.NEVER),
        ("", Thinks.NEVER),
    ],
)
def test_thinks(template: str, expected: Thinks) -> None:
    """The generation prompt tells, and the switch in it; the history does not."""
    assert thinks([plain(template)]) is expected


def test_of_several_templates_the_first_that_says_something() -> None:
    """Of a default one and one for tools, say."""
    assert thinks([texts.ANSWERS, texts.ALWAYS_THINKS, texts.SWITCH_ON]) is Thinks.ALWAYS
    assert thinks([]) is Thinks.NEVER


def test_generation_prompt_is_the_last() -> None:
    """DeepSeek's templates mention its switch at their beginning too."""
    template = "{% if not add_generation_prompt is defined %}{% endif %}<think>" + texts.ANSWERS
    assert generation_prompt(template) == texts.ANSWERS
    assert generation_prompt("<think>") == ""


def test_comments_without_end() -> None:
    """A million of them are a matter of milliseconds."""
    assert plain("a{#" * 500_000) == "a"


def test_plain() -> None:
    """Comments go, over several lines too, and quotes inside a text of Jinja's are quotes."""
    assert plain('{#- <tool_call>\n #}{{ "{\\"name\\"" }}') == '{{ "{"name"" }}'
