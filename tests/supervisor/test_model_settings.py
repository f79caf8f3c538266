"""Settings of single models: how entries merge, where each value comes from, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_llm.model_settings import ModelSettings, Origin, matching, merged, origins
from local_llm.settings import Settings
from local_llm.settings_sources import SettingsError, load_settings

ID = "org/model-7b"
# The least specific first; of two that are as specific, the later one in the file is the more so.
PATTERNS = ("*", "org/*", "*/model*", "org/model-*", ID)

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "args": st.lists(st.sampled_from(["--a", "--b", "1"]), max_size=2),
    "env": st.dictionaries(st.sampled_from("XYZ"), st.sampled_from(["1", "2"])),
    "context": st.integers(1, 9),
    "dtype": st.sampled_from(["auto", "float16"]),
    "fit": st.sampled_from(["auto", "off", False]),
    "keep": st.booleans(),
    "idle_unload_seconds": st.sampled_from([0, 5]),
    "prompt": st.sampled_from(["", "query"]),
}
ENTRY = st.fixed_dictionaries({}, optional={key: st.none() | value for key, value in _VALUES.items()})


def expected(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """By hand: one entry after the other, the least specific first."""
    said: dict[str, Any] = {}
    for entry in entries:
        for key, value in entry.items():
            if value is None:
                said.pop(key, None)
            elif key == "args":
                said[key] = (*said.get(key, ()), *value)
            elif key == "env":
                said[key] = {**said.get(key, {}), **value}
            else:
                said[key] = "off" if value is False and key == "fit" else value
    return said


@given(st.lists(ENTRY, min_size=len(PATTERNS), max_size=len(PATTERNS)))
def test_merging(entries: list[dict[str, Any]]) -> None:
    """The most specific wins, arguments and environments add up, and null undoes what is below it."""
    models = {
        pattern: ModelSettings.model_validate(entry) for pattern, entry in zip(PATTERNS, entries, strict=True)
    }
    found = merged(models, ID)
    wanted = expected(entries)
    defaults = ModelSettings()
    for key in ModelSettings.model_fields:
        assert getattr(found, key) == wanted.get(key, getattr(defaults, key)), key


@given(st.lists(ENTRY, min_size=len(PATTERNS), max_size=len(PATTERNS)))
def test_origins_are_what_is_merged(entries: list[dict[str, Any]]) -> None:
    """Each value is an entry's own, the least specific first, and together they are the whole."""
    models = {
        pattern: ModelSettings.model_validate(entry) for pattern, entry in zip(PATTERNS, entries, strict=True)
    }
    told = origins(models, ID)
    places = [PATTERNS.index(each.pattern) for each in told]
    assert places == sorted(places)
    again: dict[str, Any] = {}
    for each in told:
        said = getattr(models[each.pattern], each.key)
        assert each.value == said or (each.key == "env" and each.value.items() <= said.items())
        assert each.key in ("args", "env") or each.key not in again
        before = again.get(each.key)
        if isinstance(each.value, dict):
            assert not (before or {}).keys() & each.value.keys()
            again[each.key] = {**(before or {}), **each.value}
        else:
            again[each.key] = (*(before or ()), *each.value) if each.key == "args" else each.value
    result = merged(models, ID)
    for key in ModelSettings.model_fields:
        assert getattr(result, key) == again.get(key, getattr(ModelSettings(), key)), key


def test_the_order_of_patterns() -> None:
    """By characters that are no wildcards, whatever the order in the file; the exact id last."""
    models = {each: ModelSettings() for each in (ID, "org/model-[0-9]b", "*", "*/model*", "org/*", "other/*")}
    found = [pattern for pattern, _ in matching(models, ID)]
    assert found == ["*", "org/*", "*/model*", "org/model-[0-9]b", ID]


def test_where_values_come_from() -> None:
    """As `local-llm check` shows them."""
    models = Settings.model_validate(
        {
            "models": {
                ID: {"context": 4096, "env": {"A": "exact"}},
                "*": {"context": 1024, "args": ["--seed", 1], "env": {"A": "any", "B": "any"}},
                "org/*": {"args": ["--swap", 0], "dtype": "float16"},
            }
        }
    ).models
    assert origins(models, ID) == [
        Origin("args", ("--seed", "1"), "*"),
        Origin("env", {"B": "any"}, "*"),
        Origin("args", ("--swap", "0"), "org/*"),
        Origin("dtype", "float16", "org/*"),
        Origin("env", {"A": "exact"}, ID),
        Origin("context", 4096, ID),
    ]


def test_null_undoes_what_is_less_specific(tmp_path: Path) -> None:
    """Of single values, of arguments, and of an environment."""
    text = """
    models:
      "*": {args: [--a], env: {X: 1}, dtype: float16, fit: off, keep: false}
      a: {args: null, env: ~, dtype: , fit: null, keep: null}
      b:
    """
    settings = load_settings(written(tmp_path, text))
    assert settings.model_settings("a") == ModelSettings()
    assert settings.model_settings("b").args == ("--a",)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("value", [1, 4, "2", [0], [3, 0], (1,)])
def test_gpus(value: Any) -> None:
    """A count, or a list."""
    read = ModelSettings(gpus=value).gpus
    assert read == (tuple(value) if isinstance(value, list | tuple) else int(value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n- a", "line 1: models: should be a mapping of ids or globs to settings"),
        ("models:\n  a: [--x]", "line 2: models.a: should be a mapping of keys to values"),
        ("models:\n  a:\n    arg: [1]", "line 3: models.a.arg: there is no such key. Did you mean 'args'?"),
        (
            "models:\n  a:\n    gpus: '0,1'",
            "line 3: models.a.gpus: should be a count or a list of numbers: 2",
        ),
        (
            "models:\n  a:\n    gpus: [0, 0]",
            "line 3: models.a.gpus: should name at least one GPU, and each once",
        ),
        ("models:\n  a:\n    gpus: 0", "line 3: models.a.gpus: should be a count"),
        ("models:\n  a:\n    gpus: true", "line 3: models.a.gpus: should be a count"),
        ("models:\n  'q*':\n    aliases: [x]", "line 3: models.q*.aliases: a glob may match more than one"),
        ("models:\n  a:\n    aliases: x", "line 3: models.a.aliases: should be a list"),
        (
            "models:\n  a:\n    aliases: [x]\n  b:\n    aliases: [y, x]",
            "line 5: models.b.aliases.1: 'x' is an alias of 'a' already",
        ),
        (
            "aliases: {x: c}\nmodels:\n  a:\n    aliases: [x]",
            "line 4: models.a.aliases.0: 'x' is an alias of 'c' already",
        ),
        ("models:\n  a:\n    args: --foo 1", "line 3: models.a.args: should be a list: [first, second]"),
        ("models:\n  a:\n    env: [A=1]", "line 3: models.a.env: should be a mapping of keys to values"),
        ("models:\n  a:\n    context: 32k", "line 3: models.a.context: input should be a valid integer"),
        ("models:\n  a:\n    dtype: fp16", "line 3: models.a.dtype: input should be 'auto', 'float32'"),
        ("models:\n  a:\n    python: [a]", "line 3: models.a.python: should be a path"),
        ("models:\n  a:\n    keep: true", "line 3: models.a.keep: with it 1 are kept for good within"),
        (
            "residency: {max_models: 2, keep: [b]}\nmodels:\n  a:\n    keep: yes",
            "line 4: models.a.keep: with it 2 are kept for good within residency.max_models=2",
        ),
        ("models:\n  a: {}\n  b: {}\n  a: {context: 3}", "line 4: models.a: is there twice"),
    ],
)
def test_a_mistake_is_told_with_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    """What a new user writes, in words of YAML and not of Python."""
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, text))
    assert said in str(caught.value)
    assert "tuple" not in str(caught.value)


def test_a_kept_model_counts_once(tmp_path: Path) -> None:
    """The same id in both places; one place stays free."""
    text = "residency: {max_models: 2, keep: [a]}\nmodels: {a: {keep: true}, b: {keep: false}}"
    assert load_settings(written(tmp_path, text)).models["a"].keep is True


def test_an_environment_is_in_no_message(tmp_path: Path) -> None:
    """It may hold secrets."""
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "models: {a: {env: {HF_TOKEN: [hunter2]}}}"))
    assert "hunter2" not in str(caught.value)


def test_all_aliases() -> None:
    """Those of models and those at the top; the same one may stand in both."""
    settings = Settings.model_validate(
        {"aliases": {"gpt": "a", "x": "b"}, "models": {"a": {"aliases": ["gpt", "y"]}, "b": {}}}
    )
    assert settings.all_aliases == {"gpt": "a", "x": "b", "y": "a"}


def test_a_merge_key_is_no_repetition(tmp_path: Path) -> None:
    """YAML's own way to say something once."""
    text = "models:\n  a: &small {context: 3}\n  b:\n    <<: *small\n    dtype: float16"
    settings = load_settings(written(tmp_path, text))
    assert (settings.models["b"].context, settings.models["b"].dtype) == (3, "float16")
