"""Settings: sources, precedence, and errors for people."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from local_llm.catalog.card import Engine
from local_llm.model_settings import ModelSettings
from local_llm.settings import Settings
from local_llm.settings_sources import SettingsError, load_settings

EXAMPLE = Path(__file__).parents[2] / "config" / "local-llm.yaml"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


def every_key(section: type[BaseModel], prefix: str = "") -> set[str]:
    keys = set()
    for name, field in section.model_fields.items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= every_key(field.annotation, f"{prefix}{name}.")
    return keys


def keys_of(values: Any, prefix: str = "") -> set[str]:
    if not isinstance(values, dict):
        return set()
    return {f"{prefix}{key}" for key in values} | {
        below for key, value in values.items() for below in keys_of(value, f"{prefix}{key}.")
    }


def test_the_example_shows_every_key_with_its_default() -> None:
    """config/local-llm.yaml is true: no key missing, none too many, each with its default."""
    assert load_settings(EXAMPLE) == Settings()
    assert keys_of(yaml.safe_load(EXAMPLE.read_text())) == every_key(Settings)


def test_the_example_explains_every_key() -> None:
    """The line above each key is a comment."""
    lines = EXAMPLE.read_text().splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if line.strip() and not line.lstrip().startswith("#") and not before.lstrip().startswith("#")
    ]
    assert bare == []


def test_the_example_shows_every_key_of_a_model(tmp_path: Path) -> None:
    """In a comment, which is good YAML once it is none."""
    text = EXAMPLE.read_text()
    block = text[text.index('#   "Qwen/*":') : text.index("# All that match apply")]
    uncommented = "models:\n" + "".join(line.removeprefix("#") + "\n" for line in block.splitlines())
    file = written(tmp_path, uncommented + "residency: {max_models: 2}\n")
    shown = {
        key for each in load_settings(file).models.values() for key in each.model_fields_set | each.nulls
    }
    assert shown == ModelSettings.model_fields.keys()


def test_every_key_is_described() -> None:
    """A key without a description cannot be explained in an error or a document."""
    for field in (Settings.model_fields | Settings.model_fields["queue"].annotation.model_fields).values():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert is_section or field.description


def test_flags_win_over_the_environment_over_the_file(tmp_path: Path) -> None:
    """Precedence, key by key."""
    file = written(tmp_path, "port: 1\nhost: file\nqueue: {max_waiting: 3, patience: 2}")
    environment = {"LOCAL_LLM_PORT": "2", "LOCAL_LLM_QUEUE__PATIENCE": "0.5", "PORT": "9"}
    settings = load_settings(file, environment, {"port": 3, "host": None})
    assert (settings.port, settings.host) == (3, "file")
    assert (settings.queue.max_waiting, settings.queue.patience) == (3, 0.5)


@pytest.mark.parametrize(
    ("written_as", "means"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("'off'", "off")]
)
def test_on_and_off_are_words(tmp_path: Path, written_as: str, means: str) -> None:
    """YAML takes them for true and false."""
    settings = load_settings(written(tmp_path, f"engines:\n  vllm:\n    warm: {written_as}\n"))
    assert settings.engines.vllm.warm == means
    assert load_settings(None, {"LOCAL_LLM_ENGINES__VLLM__WARM": means}).engines.vllm.warm == means


def test_fit_off(tmp_path: Path) -> None:
    """As the error of a model that is too large proposes it."""
    text = "models:\n  a:\n    fit: off\nload:\n  read_ahead: off\n"
    settings = load_settings(written(tmp_path, text))
    assert settings.model_settings("a").fit == "off"
    assert settings.load.read_ahead == "off"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    """A file of comments only is no error."""
    assert load_settings(written(tmp_path, "# nothing\n")) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port: 99999", ["line 1", "port", "65535"]),
        ("\nqueue:\n  max_waitin: 3", ["line 3", "queue.max_waitin", "max_waiting"]),
        ("engines:\n  vlm: {}", ["line 2", "engines.vlm", "'vllm'"]),
        ("engines:\n  vllm:\n    args: nope", ["line 3", "engines.vllm.args", "list"]),
        ("models:\n  'Smol*':\n    arg: [x]", ["line 3", "models.Smol*.arg", "'args'"]),
        ("default_engine: llama", ["line 1", "default_engine", "'vllm', 'transformers'"]),
        ("default_engine: command", ["line 1", "default_engine", "'vllm' or 'transformers'"]),
        ("residency:\n  keep: [a]", ["line 1", "max_models", "one place must stay free"]),
        ("a: [", ["line", "YAML"]),
        ("- a", ["mapping", "a list"]),
        ("port: {a: 1}", ["line 1", "port", "integer", "(it is a mapping)"]),
        ("engines: {vllm: [a]}", ["line 1", "engines.vllm", "should be a mapping", "(it is a list)"]),
        ("models:\n  a:\n    prompt: 2020-13-45", ["line 3", "a date or a number", "quotes"]),
        ("port: 1\nadmin: !!bool perhaps", ["line 2", "in quotes"]),
    ],
)
def test_a_mistake_in_the_file_is_told_with_line_and_key(tmp_path: Path, text: str, said: list[str]) -> None:
    """Source, line, key, and what is allowed."""
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    for part in [str(file), *said]:
        assert part in str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    """One line each, so that one run shows them all."""
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "port: x\nhots: y"), {"LOCAL_LLM_QUEUE__FOO": "1"}, {"host": 3.5})
    assert len(str(caught.value).splitlines()) >= 3
    assert "the environment's LOCAL_LLM_QUEUE__FOO" in str(caught.value)
    assert "'host'" in str(caught.value)


def test_a_mistake_in_a_flag_names_the_flag() -> None:
    """As it was typed."""
    with pytest.raises(SettingsError, match="--port: port"):
        load_settings(flags={"port": -1})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """A named file must exist."""
    with pytest.raises(SettingsError, match=r"nowhere\.yaml: cannot be read"):
        load_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["[{hunter2: 1}]", "[@hunter2]", "[hunter2", "[[hunter2]]"])
def test_a_key_is_in_no_message(text: str) -> None:
    """A mistyped secret must not end in a terminal's scrollback."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environment={"LOCAL_LLM_API_KEYS": text})
    assert "api_keys" in str(caught.value).lower()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "engines: {vllm: [{env: {HF_TOKEN: hunter2}}]}",
        "models: {a: [{env: {HF_TOKEN: hunter2}}]}",
        "models: [{a: {env: {HF_TOKEN: hunter2}}}]",
        "residency: {keep: {env: hunter2}}",
        "stop: !!set {hunter2}",
        "engines: {vllm: {env: [HF_TOKEN, hunter2]}}",
    ],
)
def test_what_has_the_wrong_shape_is_in_no_message(tmp_path: Path, text: str) -> None:
    """A whole section may hold secrets anywhere in it."""
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["{HF_TOKEN: hunter2", "[hunter2"])
def test_a_broken_variable_is_told_without_its_value(value: str) -> None:
    """It may be a section that has secrets in it."""
    with pytest.raises(SettingsError, match="LOCAL_LLM_ENGINES__VLLM: cannot be read as") as caught:
        load_settings(environment={"LOCAL_LLM_ENGINES__VLLM": value})
    assert "hunter2" not in str(caught.value)


def test_a_date_that_does_not_exist_in_the_environment() -> None:
    """YAML reads it as one."""
    with pytest.raises(SettingsError, match="LOCAL_LLM_LOG_LEVEL: cannot be read as"):
        load_settings(environment={"LOCAL_LLM_LOG_LEVEL": "2020-13-45"})


def test_one_key_may_be_given_plainly() -> None:
    """LOCAL_LLM_API_KEYS=secret, and a number is a key too."""
    assert load_settings(environment={"LOCAL_LLM_API_KEYS": "secret"}).api_keys == ("secret",)
    assert load_settings(environment={"LOCAL_LLM_API_KEYS": "12345"}).api_keys == ("12345",)
    assert load_settings(environment={"LOCAL_LLM_API_KEYS": "[a, b]"}).api_keys == ("a", "b")


@pytest.mark.parametrize("key", ["0123", "true", "1.50", "@x", "%x", "!x", "a #b", "a: b", "1_000", "{x"])
def test_a_key_in_the_environment_is_taken_as_it_is_written(key: str) -> None:
    """As YAML, 0123 would be 83 and the others a truth, a comment, a mapping or a mistake."""
    assert load_settings(environment={"LOCAL_LLM_API_KEYS": key}).api_keys == (key,)


def test_keys_in_a_list_are_texts() -> None:
    """Numbers among them keep their zeros."""
    assert load_settings(environment={"LOCAL_LLM_API_KEYS": "[0123, 1.50]"}).api_keys == ("0123", "1.50")


def test_numbers_among_arguments_are_texts(tmp_path: Path) -> None:
    """`args: [--max-num-seqs, 8]` is what one writes."""
    settings = load_settings(written(tmp_path, "engines: {vllm: {args: [--max-num-seqs, 8], env: {A: 1}}}"))
    assert settings.engines.vllm.args == ("--max-num-seqs", "8")
    assert settings.engines.vllm.env == {"A": "1"}


def test_model_settings_merge_from_glob_to_exact_id(tmp_path: Path) -> None:
    """Arguments add up, the rest is overridden by the more specific, wherever it stands in the file."""
    text = """
    models:
      Qwen/Q3: {args: [--c], env: {X: exact}}
      "Qwen/*": {args: [--a], engine: transformers, env: {X: glob, Y: glob}}
      "*": {args: [--b]}
    """
    merged = load_settings(written(tmp_path, text)).model_settings("Qwen/Q3")
    assert merged.args == ("--b", "--a", "--c")
    assert merged.env == {"X": "exact", "Y": "glob"}
    assert merged.engine is Engine.TRANSFORMERS


def test_a_model_without_settings_has_empty_ones() -> None:
    """No match is no error."""
    assert Settings().model_settings("x").args == ()


def test_a_key_in_the_file_is_quoted_if_it_looks_like_a_number(tmp_path: Path) -> None:
    """YAML has made another number of it by the time it is read."""
    with pytest.raises(SettingsError, match="must be quoted"):
        load_settings(written(tmp_path, "api_keys: [0123]"))
    assert load_settings(written(tmp_path, "api_keys: ['0123', ' padded ']")).api_keys == ("0123", "padded")


def test_an_empty_host_is_refused_and_an_ipv6_one_taken() -> None:
    """Empty would mean all interfaces; `::` is no mapping."""
    with pytest.raises(SettingsError, match="--host: host"):
        load_settings(flags={"host": ""})
    assert load_settings(environment={"LOCAL_LLM_HOST": "::"}).host == "::"
