"""A file of the user's own families: what it does, and what is said of a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_llm.catalog.families import FamilySigns, with_file
from local_llm.catalog.families_file import FamiliesError
from local_llm.settings_sources import SettingsError, load_settings
from tests.supervisor.catalog import chat_template_texts as texts

MINE = """
families:
  - name: Mine
    model_name: ^my-
    template: {any: [<tool_call>, <function=]}
    tool_call_parser: hermes
    args: [--chat-template-content-format, string]
  - name: Qwen3-Instruct
    architectures: [Qwen3ForCausalLM]
    tool_call_parser: xlam
"""


def _file(tmp_path: Path, content: object, name: str = "families.yaml") -> Path:
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_it_is_tried_first(tmp_path: Path) -> None:
    """Its families come before the built-in ones."""
    families = with_file(_file(tmp_path, MINE))
    family = families.match(FamilySigns("my-model", "GptOssForCausalLM", templates=(texts.JSON_TOOLS,)))
    assert family is not None
    assert (family.name, family.tool_call_parser) == ("Mine", "hermes")
    assert family.args == ("--chat-template-content-format", "string")
    assert family.evidence == 'family Mine: name contains "my-"; the chat template has <tool_call>'
    other = families.match(FamilySigns("other", "GptOssForCausalLM", templates=(texts.GPT_OSS,)))
    assert other is not None
    assert other.name == "gpt-oss"


def test_it_replaces_by_name(tmp_path: Path) -> None:
    """The built-in family of the same name is gone."""
    families = with_file(_file(tmp_path, MINE))
    assert [each.tool_call_parser for each in families if each.name == "Qwen3-Instruct"] == ["xlam"]


def test_json(tmp_path: Path) -> None:
    """The built-in file's own form."""
    content = {"families": [{"name": "Mine", "model_types": ["foo"], "reasoning_parser": "qwen3"}]}
    families = with_file(_file(tmp_path, content, "families.json"))
    assert next(iter(families)).name == "Mine"


def test_the_built_in_file_is_of_this_form() -> None:
    """So it can be copied and changed."""
    import local_llm.catalog.families

    file = Path(local_llm.catalog.families.__file__).with_name("families.json")
    assert list(with_file(file)) == list(with_file(None))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("families: [", "is no YAML: "),
        ("", "should be a mapping with the key families"),
        ("[]", "should be a mapping with the key families"),
        ("family: []", "there is no such key: family. Allowed: about, families, needed_tokens, "),
        ("about: x", "the key families is missing"),
        ("families: {}", "families: should be a list, not a mapping"),
        ("families: [7]", "families[0]: should be a mapping, not a number"),
        (
            "families: [{model_types: [a]}]",
            "families[0] ('without a name'): the key name is missing",
        ),
        (
            "families: [{name: A, model_types: [a], tool_parser: hermes}]",
            "families[0] ('A'): there is no such key: tool_parser. Allowed: architectures, args, ",
        ),
        (
            "families: [{name: A, model_types: [a]}, {name: B, template: {al: [x]}}]",
            "families[1].template ('B'): there is no such key: al. Allowed: all, any, none",
        ),
        (
            "families: [{name: A, model_types: a}]",
            "families[0].model_types ('A'): should be a list, not a text",
        ),
        (
            "families: [{name: A, thinks: [maybe]}]",
            "families[0].thinks[0] ('A'): should be one of always, on, off, never",
        ),
        ("families: [{name: A, model_name: '('}]", "families[0] ('A'): model_name is no regular expression"),
        ("families: [{name: A}]", "families[0] ('A'): it would be every model's: say by what it is known"),
        (
            "families: [{name: A, model_name: a, args: [--trust_remote_code]}]",
            "families[0] ('A'): args may not have --trust-remote-code: use trust_remote_code in the settings",
        ),
        (
            "families: [{name: A, model_name: a, args: [--reasoning-parser=x]}]",
            "families[0] ('A'): args may not have --reasoning-parser: use the key reasoning_parser",
        ),
        (
            "families: [{name: A, model_name: a}, {name: A, model_name: b}]",
            "families[1] ('A'): a family of this name is there already",
        ),
    ],
)
def test_damaged(content: str, told: str, tmp_path: Path) -> None:
    """File, entry, and what is allowed."""
    file = _file(tmp_path, content)
    with pytest.raises(FamiliesError) as error:
        with_file(file)
    assert str(error.value).startswith(f"{file}: {told}")


def test_damaged_json(tmp_path: Path) -> None:
    """By the file's name, its language."""
    with pytest.raises(FamiliesError, match="is no JSON: Expecting"):
        with_file(_file(tmp_path, "{", "families.json"))


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    """It is not there, or is a folder."""
    with pytest.raises(FamiliesError, match="cannot be read"):
        with_file(tmp_path / name)


def test_the_settings_refuse_a_damaged_file(tmp_path: Path) -> None:
    """At the start, naming the line of the settings, the file and the entry."""
    file = _file(tmp_path, "families: [{name: A}]")
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"port: 0\nfamilies: {file}\n")
    with pytest.raises(SettingsError) as error:
        load_settings(settings)
    assert str(error.value).startswith(
        f"{settings}, line 2: families: {file}: families[0] ('A'): it would be"
    )


def test_the_settings_know_the_families(tmp_path: Path) -> None:
    """The built-in ones, or those of the file before them."""
    assert [each.name for each in load_settings().known_families] == [each.name for each in with_file(None)]
    loaded = load_settings(flags={"families": _file(tmp_path, MINE)})
    assert next(iter(loaded.known_families)).name == "Mine"
