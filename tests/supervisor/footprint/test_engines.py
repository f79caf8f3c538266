"""The estimates against what the real engines say: vLLM's log on the CPU, and transformers' parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local_llm.catalog.card import Engine, Kind, ModelCard
from local_llm.footprint import fields, model_layers
from local_llm.footprint.footprint import footprint_of
from local_llm.footprint.placement import Placement, place
from local_llm.settings import Settings
from local_llm.worker.environment import shared_environment
from local_llm.worker.launch import free_port
from local_llm.worker.strays import adopt_orphans
from tests.tiny_models import _byte_level_tokenizer
from tests.workers.template_stage import ROOT, Nanny, Template, reap, template

pytestmark = pytest.mark.engines

CONTEXT = 16384
SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "dtype": "bfloat16",
}
GATED_DELTA_NET = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
}
MAMBA_2 = {
    "layer_types": ["mamba", "mamba", "attention"] * 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_state": 32,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "shared_intermediate_size": 128,
}

MODELS: dict[str, tuple[str, dict[str, Any], float]] = {
    # transformers' names of configuration and model; the fields; how far below vLLM's figure is allowed
    "full attention": ("Llama", {"num_hidden_layers": 4, "head_dim": 32}, 0.05),
    "windows, with padding": (
        "Gemma2",
        {"num_hidden_layers": 5, "head_dim": 32, "sliding_window": 1024},
        0.25,
    ),
    "linear attention": ("Qwen3Next", {"num_hidden_layers": 4, "head_dim": 32, **GATED_DELTA_NET}, 0.25),
    "state space": ("GraniteMoeHybrid", {"num_hidden_layers": 6, **MAMBA_2}, 0.25),
}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """One template, from which each model's vLLM is forked."""
    adopt_orphans()
    with template("vllm", [], tmp_path_factory.mktemp("vllm"), environment()) as made:
        yield made


def environment() -> dict[str, str]:
    given = shared_environment(Engine.VLLM, Settings(), (), dict(os.environ))
    return {**given, "PYTHONPATH": str(ROOT)}


def tokens_in_log(nanny: Nanny) -> int:
    """What vLLM says the size of its KV cache is; its log ends without it if it fails."""
    seen = b""
    for line in nanny.log_lines():
        seen += line
        found = re.search(rb"KV cache size: ([\d,]+) tokens", line)
        if found:
            return int(found.group(1).replace(b",", b""))
    raise AssertionError(seen.decode())


@pytest.mark.parametrize("name", MODELS)
def test_kv_tokens(vllm: Template, tmp_path: Path, name: str) -> None:
    """Never more than vLLM finds room for, and not much less."""
    import transformers

    family, chosen, below = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**SIZES, **chosen)
    config.architectures = [f"{family}ForCausalLM"]
    config.save_pretrained(tmp_path)
    _byte_level_tokenizer().save_pretrained(tmp_path)
    nanny = vllm.fork()
    arguments = [str(tmp_path), "--host", "127.0.0.1", "--port", str(free_port())]
    arguments += ["--enforce-eager", "--load-format", "dummy", "--max-model-len", "auto"]
    nanny.launch("local_llm_worker.vllm_serve", *arguments, env=environment())
    try:
        said = tokens_in_log(nanny)
    finally:
        reap(nanny)  # hung up on, it ends all
    card = ModelCard("a", tmp_path, Kind.BASE, Engine.VLLM, ())
    placed = place(footprint_of(card, Settings(), on_gpu=False), card, (), Settings())
    assert isinstance(placed, Placement)
    assert placed.kv_tokens is not None
    assert (1 - below) * said <= placed.kv_tokens <= said
    assert placed.context == CONTEXT


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loaded_weights(tmp_path: Path, tied: bool, dtype: str) -> None:
    """Within 2% of the parameters of the loaded model, whatever type they are stored and loaded in."""
    import torch
    import transformers

    config = transformers.Qwen3Config(
        **{**SIZES, "dtype": dtype}, num_hidden_layers=2, tie_word_embeddings=tied
    )
    transformers.Qwen3ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    card = ModelCard(
        "a", tmp_path, Kind.RERANKER, Engine.TRANSFORMERS, (), size_bytes=size, weights=("model.safetensors",)
    )
    for on_gpu, loaded_as in ((False, torch.float32), (True, torch.bfloat16)):
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=loaded_as)
        held_bytes = sum(each.numel() * each.element_size() for each in model.parameters())
        found = footprint_of(card, Settings(), on_gpu=on_gpu).weights
        assert found.exact
        assert found.loaded_bytes == pytest.approx(held_bytes, rel=0.02)


def test_defaults_are_those_of_transformers() -> None:
    """What config.json may leave out: every value in `config_defaults.json`."""
    import dataclasses
    import json

    import transformers

    file = ROOT / "supervisor" / "local_llm" / "footprint" / "config_defaults.json"
    for name, defaults in json.loads(file.read_text()).items():
        family = transformers.CONFIG_MAPPING[name]
        known = {each.name: each.default for each in dataclasses.fields(family)}
        nested = {key: getattr(each, "model_type", None) for key, each in (family.sub_configs or {}).items()}
        assert defaults.items() <= {**known, **nested}.items(), name


ELSEWHERE = frozenset(("neomme", "t5_gemma_module", "t5gemma2_decoder", "t5gemma2_text", "hrm_text", "zamba"))
"""Families that vLLM does not run."""


def test_no_family_attends_to_more_than_is_counted() -> None:
    """Each of transformers' families by its defaults: as many layers with the whole context, at least."""
    import transformers

    checked = 0
    for name in sorted(fields._defaults().keys() - ELSEWHERE):
        try:
            config = transformers.CONFIG_MAPPING[name]()
            kinds = model_layers._kinds(fields.text_fields({"model_type": name}))
        except (ValueError, TypeError, AttributeError, model_layers.UnknownLayers):
            continue  # a family that has no defaults, or of which nothing is claimed
        said = getattr(config, "layer_types", None)
        if said and "decoder_layers" not in config.to_dict():
            whole = sum(each in ("full_attention", "indexed_attention", "hybrid") for each in said)
            assert sum(kind in (model_layers.FULL, model_layers.BOTH) for kind in kinds) >= whole, name
            checked += 1
    assert checked > 50
