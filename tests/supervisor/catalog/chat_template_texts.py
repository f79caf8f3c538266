"""Chat templates cut down to what tells families apart, after the published ones.

The history of a conversation is written first, the generation prompt last. Many templates of models that do
not think take `</think>` out of the history: only the generation prompt tells whether a model thinks.
"""

from __future__ import annotations

HISTORY = "{%- for message in messages %}{{- message.role + message.content }}{%- endfor %}"
STRIPS_THOUGHTS = (
    "{%- for message in messages %}{%- if '</think>' in message.content %}"
    "{%- set content = message.content.split('</think>')[-1].split('<think>')[-1] %}{%- endif %}{%- endfor %}"
)


def prompt(text: str) -> str:
    """A generation prompt that writes `text`."""
    return "{%- if add_generation_prompt %}{{- '" + text + "' }}{%- endif %}"


ANSWERS = prompt(r"<|im_start|>assistant\n")
ALWAYS_THINKS = prompt(r"<|im_start|>assistant\n<think>\n")
# Qwen3 (hybrid): the model writes <think> itself.
SWITCH_OFF = (
    r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    r"{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{%- endif %}"
)
# Qwen3.5, the larger ones.
SWITCH_OFF_ELSE_OPEN = (
    r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    r"{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
    r"{%- else %}{{- '<think>\n' }}{%- endif %}{%- endif %}"
)
# Qwen3.5, the small ones.
SWITCH_ON = (
    r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    r"{%- if enable_thinking is defined and enable_thinking is true %}{{- '<think>\n' }}"
    r"{%- else %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
# Nemotron-3.
ON_BY_DEFAULT = (
    "{%- set enable_thinking = enable_thinking if enable_thinking is defined else True %}"
    r"{%- if add_generation_prompt %}{%- if enable_thinking %}{{- '<|im_start|>assistant\n<think>\n' }}"
    r"{%- else %}{{- '<|im_start|>assistant\n<think></think>' }}{%- endif %}{%- endif %}"
)
# MiMo-V2-Flash.
OFF_UNLESS_SET = (
    r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if not enable_thinking -%}{{- '<think></think>' -}}{%- endif -%}{%- endif %}"
)
# GLM-4.5.
GLM_PROMPT = (
    "{%- if add_generation_prompt -%}<|assistant|>"
    r"{{- '\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}"
    "{%- endif -%}"
)

JSON_TOOLS = (
    r"""{{- "# Tools\n\nreturn a json object within <tool_call></tool_call> XML tags:\n<tool_call>\n"""
    r"""{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>" }}"""
)
XML_TOOLS = (
    r"{{- '<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n"
    r"</parameter>\n</function>\n</tool_call>' }}"
)
HERMES_TOOLS = """{{ '<tool_call>\\n{"arguments": <args-dict>, "name": <function-name>}\\n</tool_call>' }}"""
GLM_45_TOOLS = (
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>"
)
GLM_47_TOOLS = "<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>"

_DEEPSEEK_TOOLS = (
    "{%- if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>'"
    r" + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments']}}"
)
_WITHOUT_THOUGHTS = (
    "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}"
    "{{'<｜Assistant｜>' + content}}"
)
DEEPSEEK_V3 = _DEEPSEEK_TOOLS + "{{'<｜Assistant｜>' + content}}" + prompt("<｜Assistant｜>")
DEEPSEEK_R1 = _DEEPSEEK_TOOLS + _WITHOUT_THOUGHTS + prompt(r"<｜Assistant｜><think>\n")
# As it was published first, and as R1-0528: the model writes <think> itself.
DEEPSEEK_R1_EARLY = _DEEPSEEK_TOOLS + _WITHOUT_THOUGHTS + prompt("<｜Assistant｜>")
DEEPSEEK_V31 = (
    "{%- if not thinking is defined -%}{%- set thinking = false -%}{%- endif -%}"
    "{{'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>'}}"
    + _WITHOUT_THOUGHTS
    + "{%- if add_generation_prompt -%}{{'<｜Assistant｜>'}}{%- if not thinking -%}{{'</think>'}}"
    "{%- else -%}{{'<think>'}}{%- endif -%}{%- endif %}"
)
KIMI_K2 = (
    "<|tool_calls_section_begin|><|tool_call_begin|>"
    "{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}"
)
KIMI_K2_THINKING = f"<think>{{{{rc}}}}</think>{KIMI_K2}"
LLAMA_31 = (
    "{{- '<|start_header_id|>ipython<|end_header_id|>' }}{{- '<|python_tag|>' + tool_call.name }}"
    """{{- 'Respond in the format {"name": function name, "parameters": dictionary}.' }}"""
    + prompt("<|start_header_id|>assistant<|end_header_id|>")
)
# The small ones have no built-in tools, and so no <|python_tag|>.
LLAMA_32 = LLAMA_31.replace("<|python_tag|>", "").replace("dictionary}", """dictionary}{"parameters": """)
LLAMA_3 = "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}" + prompt(
    "<|start_header_id|>"
)
LLAMA_4 = "{{- '<|header_start|>assistant<|header_end|>' + '<|python_start|>' }}" + prompt("<|header_start|>")
# A fine-tune of Llama 3.1 with a tool format of its own, which no parser reads.
FUNCTIONARY = (
    LLAMA_31 + '{{ \'<function=example_function_name>{"example_name": "example_value"}</function>\' }}'
)
MISTRAL = "{{- '[INST]' + message['content'] + '[/INST]' }}{{- '[TOOL_CALLS] [' }}"
MAGISTRAL = MISTRAL + "{{- '[THINK]' + block['thinking'] + '[/THINK]' }}"
GEMMA_3 = "{{ '<start_of_turn>' + role }}" + prompt("<start_of_turn>model")
GEMMA_4 = (
    "{%- if enable_thinking is defined and enable_thinking -%}{{- '<|think|>' -}}{%- endif -%}"
    "{{- '<|tool>' -}}{{- '<|tool_call>call:' + function['name'] -}}"
    "{%- if add_generation_prompt -%}{{- '<|turn>model' -}}{%- if not enable_thinking | default(false) -%}"
    "{{- '<|channel>thought<channel|>' -}}{%- endif -%}{%- endif -%}"
)
FUNCTION_GEMMA = GEMMA_3 + "{{ '<start_function_call>call:' }}"
PHI_4_MINI = "{{- '<|tool|>' + tools + '<|/tool|>' }}{{- '<|tool_call|>' }}" + prompt("<|assistant|>")
PHI_4 = "{{'<|im_start|>user<|im_sep|>'}}" + prompt("<|im_start|>assistant<|im_sep|>")
PHI_4_REASONING = "{{ 'structure your response: <think> {Thought section} </think> {Solution}' }}" + PHI_4
GRANITE_3 = "{{- '<|start_of_role|>' }}{{- '<|tool_call|>' }}" + prompt("<|start_of_role|>assistant")
GRANITE_33 = "{%- if thinking %}{{- 'Write your thoughts first.' }}{%- endif %}" + GRANITE_3
GPT_OSS = "{{- '<|start|>assistant<|channel|>analysis<|message|>' }}" + prompt("<|start|>assistant")
SEED_OSS = "{{ '<seed:tool_call>' }}{{ '<seed:think>' }}<function=a><parameter=b>" + prompt(
    "<seed:bos>assistant"
)
HUNYUAN = "{{ '<tool_calls>[' }}{{ '<think>' }}" + prompt("<|startoftext|>")
ERNIE = '{{ \'<tool_call>{"name": "a"}</tool_call>\' }}'
COMMAND_A = "<|START_THINKING|><|END_THINKING|><|START_ACTION|>" + prompt("<|CHATBOT_TOKEN|>")
LFM_2 = '{{- "<|tool_call_start|>[" }}{{ content.split("</think>")[-1] }}' + ANSWERS
OLMO_3 = "{{ '<function_calls>' }}" + ANSWERS
OLMO_3_THINK = "{{ '<function_calls>' }}" + prompt(r"<|im_start|>assistant\n<think>")
INTERN = "{{ '<|action_start|><|plugin|>' }}" + ANSWERS
JAMBA = "{{ '<tool_calls>[' }}" + prompt("<|bom|><|assistant|>")
LONGCAT = "<longcat_tool_call>" + prompt(" ASSISTANT:")
APERTUS = "{{ '<|tools_prefix|>' }}" + prompt("<|assistant_start|>")
MINIMAX = "{{ '<minimax:tool_call>' }}" + prompt(r"]~b]ai\n<think>\n")
LAGUNA = GLM_45_TOOLS + SWITCH_OFF
STEP_3 = "{{ '<｜tool_calls_begin｜>' }}{{ content.split('</think>')[-1] }}" + prompt(r"assistant\n<think>\n")
DOTS = "<dots_function_call>" + prompt("<|assistant|>")

# MiniCPM3 and 4.1 have LFM2's markers around Python, which its parser does not read.
MINICPM_4 = (
    "{%- for call in message.tool_calls %}{{- '<|tool_call_start|>\\n```python\\n' }}{{ call.name }}(...)"
    "{{- '```\\n<|tool_call_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
