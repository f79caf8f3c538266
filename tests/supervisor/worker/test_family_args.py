"""What vLLM is told of a family, beside what the user tells it and what it knows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from local_llm.catalog.card import Engine, Family, Kind, ModelCard
from local_llm.installed_vllm import InstalledVllm
from local_llm.settings import Settings
from local_llm.worker import family_args as module
from local_llm.worker.family_args import args_of_family, family_args

FAMILY = Family("Foo", "hermes", "qwen3", ("--default-chat-template-kwargs", "{}"))
KWARGS = ["--default-chat-template-kwargs", "{}"]
TOOLS = ["--tool-call-parser", "hermes"]
AUTO = ["--enable-auto-tool-choice"]
REASONING = ["--reasoning-parser", "qwen3"]
INSTALLED = InstalledVllm("9.8.7", frozenset(), frozenset({"hermes", "hf"}), frozenset({"qwen3", "hf"}))


@pytest.mark.parametrize(
    ("user_args", "expected"),
    [
        ([], [*KWARGS, *TOOLS, *AUTO, *REASONING]),
        (["--max-model-len", "10"], [*KWARGS, *TOOLS, *AUTO, *REASONING]),
        (["--tool-call-parser", "xlam"], [*KWARGS, *AUTO, *REASONING]),
        (["--tool_call_parser=xlam", "--enable_auto_tool_choice"], [*KWARGS, *REASONING]),
        (["--enable-auto-tool-choice"], [*KWARGS, *TOOLS, *REASONING]),
        (["--no-enable-auto-tool-choice"], [*KWARGS, *REASONING]),
        (["--reasoning-parser="], [*KWARGS, *TOOLS, *AUTO]),
        (["--reasoning_parser", "glm45"], [*KWARGS, *TOOLS, *AUTO]),
        (["--default-chat-template-kwargs={}"], [*TOOLS, *AUTO, *REASONING]),
    ],
)
def test_users_arguments_win(user_args: list[str], expected: list[str]) -> None:
    """What they say, in whatever spelling, is not said again."""
    assert family_args(FAMILY, INSTALLED, user_args) == (expected, [])


def test_users_configuration_file(tmp_path: Path) -> None:
    """vLLM's own --config says it as well."""
    file = tmp_path / "vllm.yaml"
    file.write_text("tool-call-parser: xlam\nenable-auto-tool-choice: true\nreasoning-parser: glm45\n")
    assert family_args(FAMILY, INSTALLED, ["--config", str(file)]) == (KWARGS, [])


def test_nothing_certain() -> None:
    """A family without parsers adds nothing; neither does it where no vLLM is known."""
    assert family_args(Family("Gemma 3"), INSTALLED, []) == ([], [])
    assert family_args(Family("Gemma 3"), None, []) == ([], [])


def test_unknown_vllm_is_trusted() -> None:
    """Where its sources were not understood, nothing is left out."""
    assert family_args(FAMILY, None, []) == ([*KWARGS, *TOOLS, *AUTO, *REASONING], [])
    unread = InstalledVllm("1", frozenset(), None, None)
    assert family_args(FAMILY, unread, []) == ([*KWARGS, *TOOLS, *AUTO, *REASONING], [])


def test_parsers_that_are_not_registered() -> None:
    """Their names would end the start: left out, with a warning each."""
    args, warnings = family_args(Family("New", "new_tools", "new_thoughts"), INSTALLED, [])
    assert args == []
    left_out = "so it is left out and {} of the family New will stay part of the text."
    assert warnings == [
        f"vLLM 9.8.7 has no tool-call parser 'new_tools', {left_out.format('tool calls')}",
        f"vLLM 9.8.7 has no reasoning parser 'new_thoughts', {left_out.format('reasoning')}",
    ]


def test_parser_of_a_plugin() -> None:
    """The user's plugin registers what the sources do not have."""
    args, warnings = family_args(Family("New", "new"), INSTALLED, ["--tool-parser-plugin", "new.py"])
    assert (args, warnings) == (["--tool-call-parser", "new", *AUTO], [])


def test_parser_that_needs_a_package() -> None:
    """Registered, but its import would fail."""
    installed = InstalledVllm(
        "9", frozenset(), frozenset({"foo"}), frozenset({"foo"}), {"foo": "foo_package"}
    )
    args, warnings = family_args(Family("Foo", "foo", "foo"), installed, [])
    assert args == []
    assert [("needs the package foo_package" in each) for each in warnings] == [True, True]


def test_response_template_goes_with_no_other_parser() -> None:
    """vLLM refuses to start where "hf" stands beside another."""
    family = Family("Response template", "hf", "hf")
    both = ["--tool-call-parser", "hf", *AUTO, "--reasoning-parser", "hf"]
    assert family_args(family, INSTALLED, []) == (both, [])
    assert family_args(family, INSTALLED, ["--reasoning-parser", "qwen3"]) == ([], [])
    assert family_args(family, INSTALLED, ["--reasoning-parser", "hf"]) == (both[:3], [])


def test_a_warning_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every start of the model."""
    monkeypatch.setattr(module, "installed_vllm", lambda _python: INSTALLED)
    family = Family("New", "new_tools")
    card = ModelCard(f"org/{tmp_path.name}", tmp_path, Kind.CHAT, Engine.VLLM, (), family=family)
    with caplog.at_level(logging.WARNING):
        assert args_of_family(card, Settings(), []) == []
        assert args_of_family(card, Settings(), []) == []
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        f"model org/{tmp_path.name}: vLLM 9.8.7 has no tool-call parser 'new_tools'"
    ]
