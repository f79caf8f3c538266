"""Which family a model is of, and what vLLM is then told; expected values are vLLM's and its recipes'."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from local_llm.catalog.card import Family
from local_llm.catalog.families import FamilySigns, with_file
from tests.supervisor.catalog import chat_template_texts as texts

OFF_BY_DEFAULT = ("--default-chat-template-kwargs", '{"enable_thinking": false}')


class Case(NamedTuple):
    """A model, and the parsers it needs; None where no flag is right."""

    name: str
    architecture: str
    template: str
    tools: str | None
    reasoning: str | None


QWEN_3 = texts.JSON_TOOLS + texts.STRIPS_THOUGHTS
ANY = texts.HISTORY + texts.ANSWERS  # nothing but the architecture tells

# Every row of reference/families.md, in its order.
CASES = [
    Case("Qwen3-8B", "Qwen3ForCausalLM", QWEN_3 + texts.SWITCH_OFF, "hermes", "qwen3"),
    Case(
        "Qwen3-30B-A3B-Thinking-2507", "Qwen3MoeForCausalLM", QWEN_3 + texts.ALWAYS_THINKS, "hermes", "qwen3"
    ),
    Case(
        "Qwen3-Next-80B-A3B-Thinking", "Qwen3NextForCausalLM", QWEN_3 + texts.ALWAYS_THINKS, "hermes", "qwen3"
    ),
    Case("Qwen3-30B-A3B-Instruct-2507", "Qwen3MoeForCausalLM", QWEN_3 + texts.ANSWERS, "hermes", None),
    Case("Qwen3-Next-80B-A3B-Instruct", "Qwen3NextForCausalLM", QWEN_3 + texts.ANSWERS, "hermes", None),
    Case("Qwen3-4B-Instruct-2507", "Qwen3ForCausalLM", texts.JSON_TOOLS + texts.ANSWERS, "hermes", None),
    Case("Qwen3-Coder-30B", "Qwen3MoeForCausalLM", texts.XML_TOOLS + texts.ANSWERS, "qwen3_coder", None),
    Case("Qwen3-Coder-Next", "Qwen3NextForCausalLM", texts.XML_TOOLS + texts.ANSWERS, "qwen3_coder", None),
    Case(
        "Qwen3.5-27B",
        "Qwen3_5ForConditionalGeneration",
        texts.XML_TOOLS + texts.SWITCH_OFF_ELSE_OPEN,
        "qwen3_coder",
        "qwen3",
    ),
    Case("Qwen3.6-35B-A3B", "Qwen3_5MoeForConditionalGeneration", ANY, "qwen3_coder", "qwen3"),
    Case("Qwen2.5-7B-Instruct", "Qwen2ForCausalLM", texts.JSON_TOOLS + texts.ANSWERS, "hermes", None),
    Case("Qwen2.5-Coder", "Qwen2ForCausalLM", texts.JSON_TOOLS + texts.ANSWERS, "hermes", None),
    Case("QwQ-32B", "Qwen2ForCausalLM", QWEN_3 + texts.ALWAYS_THINKS, "hermes", "deepseek_r1"),
    Case(
        "Qwen2.5-VL-7B",
        "Qwen2_5_VLForConditionalGeneration",
        texts.JSON_TOOLS + texts.ANSWERS,
        "hermes",
        None,
    ),
    Case("Qwen3-VL-8B-Instruct", "Qwen3VLForConditionalGeneration", QWEN_3 + texts.ANSWERS, "hermes", None),
    Case(
        "Qwen3-VL-8B-Thinking",
        "Qwen3VLForConditionalGeneration",
        QWEN_3 + texts.ALWAYS_THINKS,
        "hermes",
        "qwen3",
    ),
    Case("DeepSeek-R1-Distill-Llama-8B", "LlamaForCausalLM", texts.DEEPSEEK_R1, None, "deepseek_r1"),
    Case("DeepSeek-R1-Distill-Qwen-32B", "Qwen2ForCausalLM", texts.DEEPSEEK_R1_EARLY, None, "deepseek_r1"),
    Case("DeepSeek-R1-0528-Qwen3-8B", "Qwen3ForCausalLM", texts.DEEPSEEK_R1_EARLY, None, "deepseek_r1"),
    Case("DeepSeek-R1", "DeepseekV3ForCausalLM", texts.DEEPSEEK_R1, "deepseek_v3", "deepseek_r1"),
    Case("DeepSeek-R1-0528", "DeepseekV3ForCausalLM", texts.DEEPSEEK_R1_EARLY, "deepseek_v3", "deepseek_r1"),
    Case("DeepSeek-V3-0324", "DeepseekV3ForCausalLM", texts.DEEPSEEK_V3, "deepseek_v3", None),
    Case("DeepSeek-V3.1", "DeepseekV3ForCausalLM", texts.DEEPSEEK_V31, "deepseek_v31", "deepseek_v3"),
    Case("DeepSeek-V3.2", "DeepseekV32ForCausalLM", "", "deepseek_v32", "deepseek_v3"),
    Case("DeepSeek-V4-Flash", "DeepseekV4ForCausalLM", "", "deepseek_v4", "deepseek_v4"),
    Case("Kimi-K2-Instruct", "DeepseekV3ForCausalLM", texts.KIMI_K2, "kimi_k2", None),
    Case("Kimi-K2-Thinking", "DeepseekV3ForCausalLM", texts.KIMI_K2_THINKING, "kimi_k2", "kimi_k2"),
    Case("Kimi-K2.5", "KimiK25ForConditionalGeneration", ANY, "kimi_k2", "kimi_k2"),
    Case("Kimi-K3", "KimiK3ForConditionalGeneration", "", "kimi_k3", "kimi_k3"),
    Case("GLM-4.6", "Glm4MoeForCausalLM", texts.GLM_45_TOOLS + texts.GLM_PROMPT, "glm45", "glm45"),
    Case(
        "GLM-4.5V",
        "Glm4vMoeForConditionalGeneration",
        texts.GLM_45_TOOLS + texts.GLM_PROMPT,
        "glm45",
        "glm45",
    ),
    Case("GLM-4.7", "Glm4MoeForCausalLM", texts.GLM_47_TOOLS + texts.GLM_PROMPT, "glm47", "glm45"),
    Case("GLM-4.7-Flash", "Glm4MoeLiteForCausalLM", texts.GLM_47_TOOLS + texts.GLM_PROMPT, "glm47", "glm45"),
    Case("GLM-5.2", "GlmMoeDsaForCausalLM", texts.GLM_47_TOOLS + texts.GLM_PROMPT, "glm47", "glm45"),
    Case("gpt-oss-20b", "GptOssForCausalLM", texts.GPT_OSS, "openai", "openai_gptoss"),
    Case("Llama-3.1-8B-Instruct", "LlamaForCausalLM", texts.LLAMA_31, "llama3_json", None),
    Case("Llama-3.2-1B-Instruct", "LlamaForCausalLM", texts.LLAMA_32, "llama3_json", None),
    Case("Llama-4-Scout", "Llama4ForConditionalGeneration", texts.LLAMA_4, "llama4_pythonic", None),
    Case("Hermes-3-Llama-3.1-8B", "LlamaForCausalLM", texts.HERMES_TOOLS + texts.ANSWERS, "hermes", None),
    Case("Hermes-2-Pro-Mistral-7B", "MistralForCausalLM", texts.HERMES_TOOLS + texts.ANSWERS, "hermes", None),
    Case("Llama-xLAM-2-8b-fc-r", "LlamaForCausalLM", texts.LLAMA_31, "xlam", None),
    Case("xLAM-2-3b-fc-r", "Qwen2ForCausalLM", texts.JSON_TOOLS + texts.ANSWERS, "xlam", None),
    Case("Mistral-7B-Instruct-v0.3", "MistralForCausalLM", texts.MISTRAL, "mistral", None),
    Case("Mistral-Small-3.2", "Mistral3ForConditionalGeneration", texts.MISTRAL, "mistral", None),
    Case("Mixtral-8x22B-Instruct", "MixtralForCausalLM", texts.MISTRAL, "mistral", None),
    Case("Magistral-Small-2509", "Mistral3ForConditionalGeneration", texts.MAGISTRAL, "mistral", "mistral"),
    Case("gemma-4-31B-it", "Gemma4ForConditionalGeneration", texts.GEMMA_4, "gemma4", "gemma4"),
    Case("gemma-3-4b-it", "Gemma3ForConditionalGeneration", texts.GEMMA_3, None, None),
    Case("functiongemma-270m-it", "Gemma3ForCausalLM", texts.FUNCTION_GEMMA, "functiongemma", None),
    Case("Phi-4-mini-instruct", "Phi3ForCausalLM", texts.PHI_4_MINI, "phi4_mini_json", None),
    Case("phi-4", "Phi3ForCausalLM", texts.PHI_4, None, None),
    Case("Phi-4-reasoning", "Phi3ForCausalLM", texts.PHI_4_REASONING, None, "deepseek_r1"),
    Case("granite-3.1-8b-instruct", "GraniteForCausalLM", texts.GRANITE_3, "granite", None),
    Case("granite-3.3-8b-instruct", "GraniteForCausalLM", texts.GRANITE_33, "granite", None),
    Case("granite-4.0-h-tiny", "GraniteMoeHybridForCausalLM", texts.JSON_TOOLS, "granite4", None),
    Case(
        "granite-4.2-3b",
        "GraniteMoeHybridForCausalLM",
        texts.XML_TOOLS + texts.ON_BY_DEFAULT,
        "qwen3_coder",
        "granite_thinking_parser",
    ),
    Case("granite-4.0-350m", "GraniteForCausalLM", texts.JSON_TOOLS + texts.ANSWERS, "granite4", None),
    Case(
        "Nemotron-3-Nano",
        "NemotronHForCausalLM",
        texts.XML_TOOLS + texts.ON_BY_DEFAULT,
        "qwen3_coder",
        "nemotron_v3",
    ),
    Case("MiniMax-M2.5", "MiniMaxM2ForCausalLM", texts.MINIMAX, "minimax_m2", "minimax_m2"),
    Case("MiniMax-M3", "MiniMaxM3SparseForCausalLM", ANY, "minimax_m3", "minimax_m3"),
    Case("MiMo-V2.5", "MiMoV2ForCausalLM", ANY, "mimo", "mimo"),
    Case("MiMo-V2-Flash", "MiMoV2FlashForCausalLM", ANY, "qwen3_xml", "qwen3"),
    Case("Step-3.5-Flash", "Step3p5ForCausalLM", ANY, "step3p5", "step3p5"),
    Case("Seed-OSS-36B-Instruct", "SeedOssForCausalLM", texts.SEED_OSS, "seed_oss", "seed_oss"),
    Case("Hunyuan-A13B-Instruct", "HunYuanMoEV1ForCausalLM", texts.HUNYUAN, "hunyuan_a13b", "hunyuan_a13b"),
    Case("Hy3-preview", "HYV3ForCausalLM", ANY, "hy_v3", "hy_v3"),
    Case(
        "ERNIE-4.5-21B-A3B-Thinking",
        "Ernie4_5_MoeForCausalLM",
        texts.ERNIE + texts.ALWAYS_THINKS,
        "ernie45",
        "ernie45",
    ),
    Case("ERNIE-4.5-21B-A3B-PT", "Ernie4_5_MoeForCausalLM", texts.ERNIE + texts.ANSWERS, "ernie45", None),
    Case("command-a-reasoning", "Cohere2ForCausalLM", texts.COMMAND_A, "cohere_command3", "cohere_command3"),
    Case("LFM2-1.2B", "Lfm2ForCausalLM", texts.LFM_2, "lfm2", None),
    Case("LFM2-8B-A1B", "Lfm2MoeForCausalLM", texts.LFM_2, "lfm2", None),
    Case("LFM2.5-8B-A1B", "Lfm2MoeForCausalLM", texts.LFM_2, "lfm2", "qwen3"),
    Case("LFM2.5-1.2B-Thinking", "Lfm2ForCausalLM", texts.LFM_2, "lfm2", "qwen3"),
    Case("Olmo-3-7B-Instruct", "Olmo3ForCausalLM", texts.OLMO_3, "olmo3", None),
    Case("Olmo-3-32B-Think", "Olmo3ForCausalLM", texts.OLMO_3_THINK, "olmo3", "olmo3"),
    Case("internlm2_5-7b-chat", "InternLM2ForCausalLM", texts.INTERN, "internlm", None),
    Case("Intern-S1", "InternS1ForConditionalGeneration", texts.INTERN, "internlm", "deepseek_r1"),
    Case("Intern-S2-Preview", "InternS2PreviewForConditionalGeneration", ANY, "qwen3_coder", "qwen3"),
    Case("AI21-Jamba-1.5-Mini", "JambaForCausalLM", texts.JAMBA, "jamba", None),
    Case("LongCat-Flash-Chat", "LongcatFlashForCausalLM", texts.LONGCAT, "longcat", None),
    Case("Ling-3.0-flash", "BailingMoeV3ForCausalLM", ANY, "ling3", "ling3"),
    Case("Apertus-8B-Instruct", "ApertusForCausalLM", texts.APERTUS, "apertus", None),
]

# Formats that are known where the architecture is not.
FORMATS = [
    (texts.MINIMAX, "minimax_m2", "minimax_m2"),
    (texts.KIMI_K2, "kimi_k2", None),
    (texts.SEED_OSS, "seed_oss", "seed_oss"),
    (texts.LONGCAT, "longcat", None),
    (texts.DOTS, "dots", None),
    (texts.COMMAND_A, "cohere_command3", "cohere_command3"),
    (texts.APERTUS, "apertus", None),
    (texts.FUNCTION_GEMMA, "functiongemma", None),
    (texts.LFM_2, "lfm2", None),
    (texts.MINICPM_4, None, None),
    (texts.GEMMA_4, "gemma4", "gemma4"),
    (texts.LLAMA_4, "llama4_pythonic", None),
    (texts.STEP_3, "step3", "step3"),
    (texts.DEEPSEEK_V3, "deepseek_v3", None),
    (texts.DEEPSEEK_R1, "deepseek_v3", "deepseek_r1"),
    (texts.DEEPSEEK_V31, "deepseek_v31", "deepseek_v3"),
    (texts.MISTRAL, "mistral", None),
    (texts.MAGISTRAL, "mistral", "mistral"),
    (texts.GPT_OSS, "openai", "openai_gptoss"),
    (texts.INTERN, "internlm", None),
    (texts.OLMO_3, "olmo3", None),
    (texts.OLMO_3_THINK, "olmo3", "olmo3"),
    (texts.GLM_45_TOOLS + texts.GLM_PROMPT, "glm45", "glm45"),
    (texts.XML_TOOLS + texts.ANSWERS, "qwen3_coder", None),
    (texts.XML_TOOLS + texts.SWITCH_OFF_ELSE_OPEN, "qwen3_coder", "qwen3"),
    (texts.GRANITE_3, "granite", None),
    (texts.PHI_4_MINI, "phi4_mini_json", None),
    (texts.JSON_TOOLS + texts.ANSWERS, "hermes", None),
    (texts.JSON_TOOLS + texts.SWITCH_OFF, "hermes", "qwen3"),
    (texts.LLAMA_31, "llama3_json", None),
]

# What looks like a family and is none, or another: (name, architecture, template, tools, reasoning).
NEAR_MISSES = [
    Case("Llama-3-8B-Instruct", "LlamaForCausalLM", texts.LLAMA_3, None, None),
    Case("functionary-medium-v3.1", "LlamaForCausalLM", texts.FUNCTIONARY, None, None),
    Case("tiny", "LlamaForCausalLM", texts.HISTORY + texts.ANSWERS, None, None),
    # A template that closes the thoughts before they begin, as Qwen3's embedding models have.
    Case("Qwen3-Fast", "Qwen3ForCausalLM", QWEN_3 + texts.prompt(r"<think>\n\n</think>\n\n"), "hermes", None),
    # Published with the chat model's template; it was not taught to think.
    Case("Qwen3-8B-Base", "Qwen3ForCausalLM", QWEN_3 + texts.SWITCH_OFF, "hermes", None),
    Case("Qwen3-Basel", "Qwen3ForCausalLM", QWEN_3 + texts.SWITCH_OFF, "hermes", "qwen3"),
    Case("Qwen3-plain", "Qwen3ForCausalLM", texts.HISTORY + texts.SWITCH_OFF, None, None),
    Case("Qwen2.5-VL-tuned", "Qwen2_5_VLForConditionalGeneration", texts.HISTORY + texts.ANSWERS, None, None),
    Case("Mistral-7B-Instruct-v0.2", "MistralForCausalLM", "{{ '[INST]' }}", None, None),
    Case("AI21-Jamba-Reasoning-3B", "JambaForCausalLM", QWEN_3 + texts.ANSWERS, "hermes", None),
    Case("Laguna", "LagunaForCausalLM", texts.LAGUNA, "poolside_v1", "poolside_v1"),
    Case("DeepSeek-V3-bare", "DeepseekV3ForCausalLM", texts.prompt("<｜Assistant｜>"), None, None),
    Case("commented", "FooForCausalLM", '{# <tool_call> "name" #}' + texts.ANSWERS, None, None),
]


def _match(name: str, architecture: str, *templates: str, **signs: Any) -> Family | None:
    return with_file(None).match(
        FamilySigns(name, architecture, templates=tuple(each for each in templates if each), **signs)
    )


def _parsers(family: Family | None) -> tuple[str | None, str | None]:
    return (family.tool_call_parser, family.reasoning_parser) if family else (None, None)


@pytest.mark.parametrize("case", [*CASES, *NEAR_MISSES], ids=lambda case: case.name)
def test_family(case: Case) -> None:
    """The parsers of a published model, told from its architecture, template and name."""
    assert _parsers(_match(case.name, case.architecture, case.template)) == (case.tools, case.reasoning)


@pytest.mark.parametrize(("template", "tools", "reasoning"), FORMATS, ids=[str(each[1]) for each in FORMATS])
def test_format_of_an_unknown_architecture(template: str, tools: str, reasoning: str | None) -> None:
    """The template's own markers tell."""
    assert _parsers(_match("tuned", "FooForCausalLM", template)) == (tools, reasoning)


@pytest.mark.parametrize("case", [each for each in CASES if each.template], ids=lambda case: case.name)
def test_without_a_template_there_is_no_parser(case: Case) -> None:
    """A base model of the same architecture."""
    assert _match(case.name, case.architecture) is None


@pytest.mark.parametrize("architecture", ["DeepseekV32ForCausalLM", "DeepseekV4ForCausalLM"])
def test_base_models_of_which_vllm_knows_the_format(architecture: str) -> None:
    """Their name alone tells: they have no template, as the chat models have none."""
    assert _match("DeepSeek-V4-Base", architecture) is None
    signs = FamilySigns("DeepSeek-V4", architecture)
    assert with_file(None).built_in_template(signs) is not None


def test_mistral_in_its_own_format() -> None:
    """Without config.json and without a Jinja template: Mistral's tokenizer has the format."""
    files = frozenset(("params.json", "tekken.json", "consolidated.safetensors"))
    signs = FamilySigns("Mistral-Small-3.2", files=files)
    assert _parsers(with_file(None).match(signs)) == ("mistral", None)
    assert with_file(None).built_in_template(signs) is not None
    reasoning = with_file(None).match(FamilySigns("Magistral-Small", files=files))
    assert _parsers(reasoning) == ("mistral", "mistral")
    assert with_file(None).match(FamilySigns("Mistral-Small-3.1-Base", files=files)) is None


@pytest.mark.parametrize("template", [texts.SWITCH_ON, texts.OFF_UNLESS_SET])
@pytest.mark.parametrize("architecture", ["Qwen3_5ForConditionalGeneration", "Qwen3ForCausalLM"])
def test_a_model_that_thinks_only_when_asked_to(architecture: str, template: str) -> None:
    """vLLM's parser would take its plain answers for reasoning, were it not told the template's default."""
    family = _match("Qwen3.5-2B", architecture, texts.JSON_TOOLS, template)
    assert family is not None
    assert family.reasoning_parser == "qwen3"
    assert family.args == OFF_BY_DEFAULT


@pytest.mark.parametrize(
    ("template", "architecture"),
    [(texts.GEMMA_4, "Gemma4ForConditionalGeneration"), (texts.DEEPSEEK_V31, "DeepseekV3ForCausalLM")],
)
def test_parsers_that_wait_for_a_thought_need_no_such_default(template: str, architecture: str) -> None:
    """They leave plain answers alone."""
    family = _match("model", architecture, template)
    assert family is not None
    assert family.args == ()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("GLM-5", ("--chat-template-content-format", "string")),
        ("GLM-5.1-FP8", ("--chat-template-content-format", "string")),
        ("GLM-5.2", ()),
        ("GLM-5.11", ()),
    ],
)
def test_glm_5(name: str, args: tuple[str, ...]) -> None:
    """Only the first two need their content as text."""
    family = _match(name, "GlmMoeDsaForCausalLM", ANY)
    assert family is not None
    assert family.args == args


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("content", "thinking", "tool_calls"), ("hf", "hf")),
        (("content", "tool_calls"), ("hf", None)),
        (("content",), ("hermes", "qwen3")),
    ],
)
def test_response_template(fields: tuple[str, ...], expected: tuple[str, str | None]) -> None:
    """What the checkpoint says of its own answers comes first."""
    family = _match(
        "Qwen3-8B", "Qwen3ForCausalLM", QWEN_3 + texts.SWITCH_OFF, response_fields=frozenset(fields)
    )
    assert _parsers(family) == expected


def test_kimi_by_its_model_type() -> None:
    """Whatever template was put in its place."""
    assert _parsers(_match("mine", "DeepseekV3ForCausalLM", ANY, model_type="kimi_k2")) == ("kimi_k2", None)


def test_named_templates_count_together() -> None:
    """Hermes 3 has its tools in a second template; the default one tells nothing of them."""
    assert _parsers(_match("Hermes-3", "LlamaForCausalLM", texts.LLAMA_3, texts.HERMES_TOOLS)) == (
        "hermes",
        None,
    )


def test_evidence() -> None:
    """It says for people what was seen."""
    family = _match("Qwen3-Coder", "Qwen3MoeForCausalLM", texts.XML_TOOLS)
    assert family is not None
    assert family.evidence == (
        "family Qwen3-Coder: architectures[0] is Qwen3MoeForCausalLM; "
        "the chat template has <function=, <parameter="
    )


def test_nothing_runs_remote_code() -> None:
    """Nor does any family bring its parsers twice, or templates that are not in vLLM's wheel."""
    flags = {arg for family in with_file(None) for arg in family.args if arg.startswith("--")}
    assert flags == {"--chat-template-content-format"}


def test_names_are_unique() -> None:
    """A user's family replaces the one of its name."""
    names = [family.name for family in with_file(None)]
    assert len(names) == len(set(names))
