"""From texts to tokens and from tokens to a padded batch, by sentence-transformers' own first module.

Not safe for two threads: Hugging Face's fast tokenizers keep truncation and padding as state of the one
Rust object ("Already borrowed"). One thread tokenises; within a call Rust uses several cores by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase

from local_llm_worker.pooling.errors import BadRequest, ModelRefused
from local_llm_worker.pooling.inputs import Input, Item, Pair, TokenizeOptions
from local_llm_worker.pooling.token_ids import check_range


class Tokenization:
    """Prepares inputs for a sentence-transformers model.

    Args:
        model: a `SentenceTransformer` or a `CrossEncoder`.

    Attributes:
        max_length: tokens of one input at most.
        position_count: that the model has; None if it does not say.

    Raises:
        ModelRefused: the model does not begin with a transformer that reads text.
    """

    def __init__(self, model: Any) -> None:
        module = model[0]
        if not isinstance(module, Transformer) or not isinstance(module.processor, PreTrainedTokenizerBase):
            raise ModelRefused(
                f"The model begins with a {type(module).__name__} module; served are models that begin with "
                "a transformer that reads text."
            )
        self._model = model
        self._tokenizer = module.processor
        # Padding what is tokenised already is what a batch across requests needs: no advice wanted.
        self._tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        self._vocabulary_size = _vocabulary_size(module)
        self.takes_instruction = "message" in module.modality_config
        self.max_length = int(module.max_seq_length)
        self.position_count = _position_count(module)

    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]:
        """Tokenises without padding; cuts only what `options` say.

        Raises:
            InputRejected: an id that the model's vocabulary does not have.
        """
        if options.own_ids:
            return [self._from_own_ids(index, ids) for index, ids in enumerate(inputs)]  # type: ignore[arg-type]
        texts = self._shortened(inputs, options)
        truncation: dict[str, Any] = {"truncation": False}
        if options.max_length is not None:
            truncation = {"truncation": True, "max_length": options.max_length}
        features = self._model.preprocess(
            texts,
            prompt=options.prompt,
            processing_kwargs={
                "text": {"padding": False, "verbose": False, **truncation},
                "common": {"return_tensors": None},
            },
        )
        return _items(features)

    def tokenize_plainly(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]:
        """As `tokenize`, without the chat template that sentence-transformers would use if there is one."""
        if options.own_ids:
            return self.tokenize(inputs, options)
        prompt = options.prompt or ""
        sides: Any = [inputs] if isinstance(inputs[0], str) else list(zip(*inputs, strict=True))
        features = self._tokenizer(
            *([prompt + each for each in sides[0]], *map(list, sides[1:])),
            add_special_tokens=options.special_tokens,
            truncation=options.max_length is not None,
            max_length=options.max_length,
            padding=False,
            verbose=False,
        )
        return _items({**features, "modality": "text"})

    def conversation(self, messages: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]) -> str:
        """The text that the model's chat template makes of a conversation. For any thread.

        Raises:
            BadRequest: there is no template, or it does not take these messages.
        """
        if not self._tokenizer.chat_template:
            raise BadRequest("This model has no chat template: send input.", param="messages")
        try:
            return str(self._tokenizer.apply_chat_template(messages, **{**arguments, "tokenize": False}))
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise BadRequest(
                f"The model's chat template does not take this: {error}", param="messages"
            ) from None

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """One padded batch, as the model's `forward` takes it; all items share their shared features."""
        columns = {name: [each.features[name] for each in items] for name in items[0].features}
        padded = self._tokenizer.pad(columns, return_tensors="pt")
        return {**padded, **dict(items[0].shared)}

    def _from_own_ids(self, index: int, ids: list[int]) -> Item:
        check_range(index, ids, self._vocabulary_size)
        features = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        if "token_type_ids" in self._tokenizer.model_input_names:
            features["token_type_ids"] = [0] * len(ids)
        return Item(features, (("modality", "text"),))

    def _shortened(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Any]:
        if options.max_query_tokens is None and options.max_document_tokens is None:
            return list(inputs)
        pairs: Sequence[Pair] = inputs  # type: ignore[assignment]
        queries = self._cut([query for query, _ in pairs], options.max_query_tokens)
        documents = self._cut([document for _, document in pairs], options.max_document_tokens)
        return list(zip(queries, documents, strict=True))

    def _cut(self, texts: list[str], max_tokens: int | None) -> list[str]:
        if max_tokens is None:
            return texts
        offsets = self._tokenizer(
            texts,
            add_special_tokens=False,
            truncation=True,
            max_length=max_tokens,
            padding=False,
            return_offsets_mapping=True,
        )["offset_mapping"]
        return [text[: each[-1][1]] if each else text for text, each in zip(texts, offsets, strict=True)]


def _vocabulary_size(module: Transformer) -> int:
    embeddings = module.model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def _position_count(module: Transformer) -> int | None:
    config = module.model.config.get_text_config()
    count = getattr(config, "max_position_embeddings", None)
    if not isinstance(count, int):
        return None
    # RoBERTa and its like count positions from behind the padding's, and have as many more.
    embeddings = getattr(module.model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return count if padding is None else count - padding - 1


def _items(features: Any) -> list[Item]:
    """Takes apart what sentence-transformers returns for several inputs, lists without padding."""
    columns = {name: values for name, values in features.items() if isinstance(values, list)}
    shared = tuple((name, value) for name, value in features.items() if name not in columns)
    count = len(columns["input_ids"])
    return [Item({name: values[row] for name, values in columns.items()}, shared) for row in range(count)]


def to_device(features: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in features.items()
    }
