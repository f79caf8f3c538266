"""What embedding models, rerankers and classifiers have in common: tokens in, rows of numbers out."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from local_llm_worker.pooling.errors import DeviceLost, ModelRefused, OutOfMemory
from local_llm_worker.pooling.inputs import Input, Item, TokenizeOptions
from local_llm_worker.pooling.tokenizing import Tokenization, to_device

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Loading:
    """How a folder is loaded.

    Attributes:
        path: the model's folder.
        device: holds the weights.
        dtype: of the weights.
        trust_remote_code: whether Python files in the folder may be run.
    """

    path: Path
    device: torch.device
    dtype: torch.dtype
    trust_remote_code: bool = False

    def arguments(self) -> dict[str, Any]:
        """What every sentence-transformers class takes; nothing is ever downloaded."""
        return {
            "device": str(self.device),
            "local_files_only": True,
            "trust_remote_code": self.trust_remote_code,
            "model_kwargs": {"dtype": self.dtype},
        }


class Inference(ABC):
    """A loaded model. `tokenize` belongs to one thread; `compute` to as many others as there are lanes.

    Args:
        model: a `SentenceTransformer` or a `CrossEncoder`.

    Attributes:
        prompts: the model's named prompts.
        default_prompt: applies where a request asks for none; None if the folder names none.
        template_length: tokens of an input in which the client has not said a word.
    """

    NOTHING: ClassVar[Input]
    """An input without a word."""
    WHAT: ClassVar[str]
    """What it is and answers, to complete "is ..."."""

    def __init__(self, model: Any) -> None:
        self._model = model.eval()
        self._tokenization = Tokenization(model)
        self.prompts: dict[str, str] = dict(model.prompts)
        self.default_prompt = self.prompts.get(model.default_prompt_name)
        self.template_length = len(self.tokenize([self.NOTHING], TokenizeOptions())[0])

    @property
    def max_length(self) -> int:
        """Tokens of one input at most."""
        return self._tokenization.max_length

    def set_max_length(self, tokens: int) -> None:
        """Takes inputs of so many tokens, in place of what the folder says.

        Raises:
            ModelRefused: the model cannot, or no word would have room.
        """
        most = self._tokenization.position_count
        if most is not None and tokens > most:
            raise ModelRefused(f"The model has {most} positions, so its inputs cannot have {tokens} tokens.")
        if tokens <= self.template_length:
            raise ModelRefused(
                f"Inputs of {tokens} tokens would have no room for a word: {self.template_length} are taken "
                "by what the model puts around them."
            )
        self._tokenization.max_length = tokens

    def tokenize(self, inputs: Sequence[Input], options: TokenizeOptions) -> list[Item]:
        """See `Tokenization.tokenize`."""
        return self._tokenization.tokenize(inputs, options)

    def use_threads(self, count: int) -> None:
        """With so many threads of torch's the calling thread computes from now on."""
        torch.set_num_threads(count)

    def compute(self, items: Sequence[Item]) -> Rows:
        """One batch.

        Returns:
            float32, one row an item, in their order.

        Raises:
            OutOfMemory: the batch does not fit the device.
            DeviceLost: neither this batch nor any other can be computed.
        """
        try:
            with torch.inference_mode():
                features = to_device(self._tokenization.collate(items), self._model.device)
                rows = self._read_out(self._model(features))
                return np.asarray(rows.float().cpu().numpy(), dtype=np.float32)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"The device's memory does not hold {len(items)} inputs: {error}") from None
        except torch.AcceleratorError as error:
            raise DeviceLost("The device failed; the worker ends. Ask again for a new one.") from error

    def free_memory(self) -> None:
        """Gives back what a failed batch held."""
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def warm_up(self) -> None:
        """Computes one input, so that kernels are loaded and a model that cannot work fails now."""
        self.compute(self.tokenize([self.NOTHING], TokenizeOptions(prompt="ready")))

    @abstractmethod
    def _read_out(self, features: dict[str, Any]) -> torch.Tensor:
        """The rows among what the model's modules returned."""
