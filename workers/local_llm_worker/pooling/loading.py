"""Imports the engine and loads a model. The only module of the program's that is slow to import."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch

from local_llm_worker.pooling.batching import BatchLimits
from local_llm_worker.pooling.classifying import Classifier
from local_llm_worker.pooling.device import batch_limits, choose_device, choose_dtype, choose_lanes
from local_llm_worker.pooling.embedding import EmbeddingModel
from local_llm_worker.pooling.folder import Folder, Kind
from local_llm_worker.pooling.inference import Loading
from local_llm_worker.pooling.reranking import Reranker
from local_llm_worker.pooling.turns import Lanes

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What the command line says of loading and computing.

    Attributes:
        kind: of the model.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto`` or torch's name of a type.
        threads: that torch computes with on the CPU.
        max_batch_tokens: padding included.
        trust_remote_code: whether Python files in the folder may be run.
        max_length: tokens of one input at most; None: what the folder says.
        prompt: of an embedding model, for inputs that name none; None: what the folder says.
    """

    kind: Kind
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 1
    max_batch_tokens: int = 16384
    trust_remote_code: bool = False
    max_length: int | None = None
    prompt: str | None = None


Model: TypeAlias = EmbeddingModel | Reranker | Classifier


class Loaded(NamedTuple):
    """A model that has computed once, and how it is computed with."""

    model: Model
    limits: BatchLimits
    lanes: Lanes


def load(path: Path, options: LoadOptions) -> Loaded:
    """Loads the folder's model, computes with it once, and says how large its batches may be.

    Raises:
        ModelRefused: it cannot be served, or not so.
    """
    # By call, not only by environment: in a process forked from a warm template torch has read that already.
    torch.set_num_threads(options.threads)
    folder = Folder(path)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, folder.model_type)
    _log.info("%s: %s on %s, %s, %d threads", path, options.kind.value, device, dtype, options.threads)
    loading = Loading(path, device, dtype, options.trust_remote_code)
    model = _load(options.kind, loading, folder)
    if options.max_length is not None:
        model.set_max_length(options.max_length)
    if options.prompt is not None:
        model.set_default_prompt(options.prompt)
    model.warm_up()
    limits = batch_limits(device, options.max_batch_tokens)
    lanes = choose_lanes(device, options.threads, folder.model_type, remote_code=options.trust_remote_code)
    return Loaded(model, limits, lanes)


def _load(kind: Kind, loading: Loading, folder: Folder) -> Model:
    match kind:
        case Kind.EMBEDDING:
            return EmbeddingModel.load(loading)
        case Kind.RERANKER:
            return Reranker.load(loading, folder)
        case Kind.CLASSIFIER:
            return Classifier.load(loading)
