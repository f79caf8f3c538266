"""Which engine runs a language model: vLLM, unless the installed one does not have its architecture."""

from __future__ import annotations

from dataclasses import replace

from local_llm.catalog.card import WRITES_TEXT, Engine
from local_llm.catalog.kinds import Decision
from local_llm.installed_vllm import installed_vllm
from local_llm.model_settings import ModelSettings
from local_llm.settings import Settings

# Every vLLM of the last two years has these: no need to ask which one is installed.
_IN_EVERY_VLLM = frozenset(
    [
        "DeepseekV2ForCausalLM",
        "GemmaForCausalLM",
        "Gemma2ForCausalLM",
        "GPT2LMHeadModel",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "Phi3ForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen2VLForConditionalGeneration",
    ]
)


def with_engine_that_has_it(
    decision: Decision, architecture: str | None, settings: Settings, chosen: ModelSettings, *, own_code: bool
) -> Decision:
    """The decision, with transformers in place of a vLLM that does not have the architecture.

    Where nothing is known of the installed vLLM, or the settings choose an engine, it stays as it is.

    Args:
        decision: by kind alone.
        architecture: ``architectures[0]`` of config.json.
        settings: say which Python has vLLM.
        chosen: what the settings say of this model.
        own_code: the folder brings the model's code. Transformers' own `serve` takes classes from
            transformers only; vLLM may run it through its transformers backend.
    """
    if decision.engine is not Engine.VLLM or decision.kind not in WRITES_TEXT or chosen.engine is not None:
        return decision
    if architecture is None or architecture in _IN_EVERY_VLLM or own_code:
        return decision
    installed = installed_vllm(chosen.python or settings.engines.vllm.python)
    if installed is None or architecture in installed.architectures:
        return decision
    why = f"vLLM {installed.version} does not have {architecture}; transformers' own serve runs it"
    return replace(decision, engine=Engine.TRANSFORMERS, evidence=(*decision.evidence, why))
