"""The command line of our own server for embeddings, reranking and classification. Pure."""

from __future__ import annotations

from local_llm.catalog.card import Kind
from local_llm.settings import Settings
from local_llm.worker.launch import Identity


def pooling_args(identity: Identity, settings: Settings) -> list[str]:
    """Arguments for the Python that has the engine."""
    card = identity.card
    engine = settings.engines.transformers
    model = settings.model_settings(card.id)
    args = ["-m", "local_llm_worker.pooling", "--model", str(card.path.absolute())]
    args += ["--served-name", *card.served_names]
    args += ["--port", str(identity.port), "--kind", card.kind.value]
    args += ["--token-ids", engine.token_ids, "--max-batch-tokens", str(engine.max_batch_tokens)]
    if model.context is not None:
        args += ["--max-length", str(model.context)]
    if model.dtype is not None:
        args += ["--dtype", model.dtype]
    if model.prompt is not None and card.kind is Kind.EMBEDDING:
        args.append(f"--prompt={model.prompt}")  # one word: a text may begin with a dash
    if model.trust_remote_code:
        args.append("--trust-remote-code")
    return args
