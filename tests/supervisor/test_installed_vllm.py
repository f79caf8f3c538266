"""What the installed vLLM registers, read from its sources."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from local_llm.catalog.families import with_file
from local_llm.installed_vllm import installed_vllm, read_package

REGISTRY = """
import nothing_that_exists

_TEXT_GENERATION_MODELS = {
    # [Decoder-only]
    "FooForCausalLM": ("foo", "FooForCausalLM"),
    # "GoneForCausalLM": ("gone", "GoneForCausalLM"),
    "BarForCausalLM": (
        "vllm.models.bar",
        "BarForCausalLM",
    ),
}

_MULTIMODAL_MODELS: dict[str, tuple[str, str]] = {
    "SeesForConditionalGeneration": ("sees", "Sees"),
}

_VLLM_MODELS = {
    **_TEXT_GENERATION_MODELS,
    **_MULTIMODAL_MODELS,
    "Direct": ("direct", "Direct"),
}

_PREVIOUSLY_SUPPORTED_MODELS = {
    "OldForCausalLM": "0.10.2",
}
"""
TOOLS = (
    '_TOOL_PARSERS_TO_REGISTER = {\n    "hermes": (  # name\n        "file",\n        "Class",\n    ),\n}\n'
)
REASONING = '_REASONING_PARSERS_TO_REGISTER = {\n    "qwen3": ("file", "Class"),\n}\n'


def _package(folder: Path, **files: str) -> Path:
    contents = {
        "__init__.py": "raise SystemExit('imported')",
        "_version.py": "__version__ = version = '9.8.7'\n",
        "model_executor/models/registry.py": REGISTRY,
        "tool_parsers/__init__.py": TOOLS,
        "reasoning/__init__.py": REASONING,
        **{name.replace("__", "/"): content for name, content in files.items()},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_sources_are_read(tmp_path: Path) -> None:
    """Of the dictionaries that count, the keys; comments, former models and what lies deeper do not."""
    found = read_package(_package(tmp_path / "vllm"))
    assert found is not None
    assert found.version == "9.8.7"
    assert found.architectures == {
        "FooForCausalLM",
        "BarForCausalLM",
        "SeesForConditionalGeneration",
        "Direct",
    }
    assert (found.tool_parsers, found.reasoning_parsers) == ({"hermes"}, {"qwen3"})


def test_where_older_versions_had_their_tool_parsers(tmp_path: Path) -> None:
    """Before 0.13."""
    folder = _package(tmp_path / "vllm")
    (folder / "entrypoints/openai").mkdir(parents=True)
    (folder / "tool_parsers").rename(folder / "entrypoints/openai/tool_parsers")
    found = read_package(folder)
    assert found is not None
    assert found.tool_parsers == {"hermes"}


def test_sources_of_another_layout(tmp_path: Path) -> None:
    """What is not understood is not known, which is not the same as none."""
    folder = _package(tmp_path / "vllm")
    (folder / "reasoning/__init__.py").write_text("REGISTERED = register_all()\n")
    (folder / "_version.py").unlink()
    found = read_package(folder)
    assert found is not None
    assert (found.version, found.reasoning_parsers) == ("unknown", None)
    (folder / "model_executor/models/registry.py").write_text("MODELS = discover()\n")
    assert read_package(folder) is None
    assert read_package(tmp_path / "nowhere") is None


def test_packages_that_a_parser_needs(tmp_path: Path) -> None:
    """Registered, and yet the start would end with an ImportError."""
    found = read_package(_package(tmp_path / "vllm"))
    assert found is not None
    assert found.lacking == dict.fromkeys(("cohere_command3", "cohere_command4"), "cohere_melody")
    (tmp_path / "cohere_melody").mkdir()
    found = read_package(tmp_path / "vllm")
    assert found is not None
    assert found.lacking == {}


def _python(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked where its package lies, and imports nothing."""
    _package(tmp_path / "site" / "vllm")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    python = _python(tmp_path / "python", f'exec {sys.executable} "$@"')
    found = installed_vllm(python)
    assert found is not None
    assert found.version == "9.8.7"
    assert installed_vllm(python) is found


@pytest.mark.parametrize("script", ["exit 3", "echo no JSON", "echo 7", "echo '[]'", "echo '[3]'"])
def test_a_python_that_does_not_answer(tmp_path: Path, script: str) -> None:
    """Then nothing is known; a launch with it will say what is wrong."""
    assert installed_vllm(_python(tmp_path / "python", script)) is None


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    """The same."""
    assert installed_vllm(tmp_path / "nowhere") is None


@pytest.mark.engines
def test_every_parser_of_the_families_is_registered() -> None:
    """In the vLLM that the project is made for; and the architectures of its registry are found."""
    found = installed_vllm()
    assert found is not None
    assert found.tool_parsers is not None
    assert found.reasoning_parsers is not None
    assert found.tool_parsers >= {each.tool_call_parser for each in with_file(None)} - {None}
    assert found.reasoning_parsers >= {each.reasoning_parser for each in with_file(None)} - {None}
    assert {"LlamaForCausalLM", "Olmo3ForCausalLM", "WhisperForConditionalGeneration"} <= found.architectures
    assert "MllamaForConditionalGeneration" not in found.architectures
