"""Rerankers, through sentence-transformers: cross-encoders, and language models that answer yes or no."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers import CrossEncoder

from local_llm_worker.pooling.errors import ModelRefused
from local_llm_worker.pooling.folder import Folder
from local_llm_worker.pooling.inference import Inference, Loading

QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# The template of Qwen3-Reranker's model card. Copies from before sentence-transformers 5.4 carry only the
# template for chats, and without this one the wrong document can win (0.958 against 0.804, vllm#55501).
# A system message is how sentence-transformers passes a prompt, here the instruction.
QWEN3_TEMPLATE = (
    "{%- set said = namespace(system='" + QWEN3_INSTRUCTION + "', query='', document='') %}"
    "{%- for each in messages %}"
    "{%- if each.role == 'system' %}{% set said.system = each.content %}"
    "{%- elif each.role == 'query' %}{% set said.query = each.content %}"
    "{%- elif each.role == 'document' %}{% set said.document = each.content %}"
    "{%- endif %}"
    "{%- endfor %}"
    "<|im_start|>system\n"
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
    "<Instruct>: {{ said.system }}\n<Query>: {{ said.query }}\n<Document>: {{ said.document }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"  # Jinja drops a newline that ends a template
)


class Reranker(Inference):
    """A loaded `CrossEncoder` of one label. Its rows have two columns, `RAW` and `ACTIVATED`."""

    NOTHING = ("", "")
    WHAT = "a reranker: ask /v1/rerank or /v1/score"
    RAW, ACTIVATED = 0, 1

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__(model)
        if model.num_labels != 1:
            raise ModelRefused(f"The model is a classifier of {model.num_labels} labels, not a reranker.")

    @classmethod
    def load(cls, loading: Loading, folder: Folder) -> Reranker:
        """Reads the folder's weights.

        Raises:
            ModelRefused: a classifier, or a language model of which nothing says how it is asked.
        """
        arguments = loading.arguments()
        if folder.is_generative and not folder.module_types:
            arguments["processor_kwargs"] = {"chat_template": _template_for(folder)}
        return cls(CrossEncoder(str(loading.path), **arguments))

    def set_default_prompt(self, prompt: str) -> None:
        """Not for this kind of model.

        Raises:
            ModelRefused: always.
        """
        raise ModelRefused(f"A prompt ({prompt!r}) is for embedding models; this is a reranker.")

    @property
    def takes_instruction(self) -> bool:
        """Whether a request may say what relevance means: generative rerankers are asked in words."""
        return self._tokenization.takes_instruction

    def _read_out(self, features: dict[str, Any]) -> torch.Tensor:
        raw = features["scores"].float().reshape(-1, 1)
        return torch.cat([raw, self._model.activation_fn(raw)], dim=1)


def _template_for(folder: Folder) -> str:
    if folder.model_type == "qwen3":
        return QWEN3_TEMPLATE
    raise ModelRefused(
        f"{folder.path} is a {folder.architecture} without modules.json, and nothing in it says how the "
        "model is asked for a score. Get the copy that sentence-transformers 5.4 or newer reads (it has a "
        "LogitScore module)."
    )
