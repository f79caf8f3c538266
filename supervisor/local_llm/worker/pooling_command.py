"""The command line of our own server for embeddings, reranking and classification. Pure."""

from __future__ import annotations

from local_llm.catalog.card import Kind
from local_llm.settings import Settings
from local_llm.worker.launch import Identity


def pooling_args(identity: Identity, settings: Settings) -> list[str]:
    """Arguments for the Python that has the engine."""
    card = identity.card
    engine = settings.engines.transformers
    # A classifier is scored the way a reranker is: one text, or a pair, to numbers.
    kind = "embedding" if card.kind is Kind.EMBEDDING else "reranker"
    args = ["-m", "local_llm_worker.pooling", "--model", str(card.path.absolute())]
    args += ["--served-name", *card.served_names]
    args += ["--port", str(identity.port), "--kind", kind]
    args += ["--token-ids", engine.token_ids, "--max-batch-tokens", str(engine.max_batch_tokens)]
    return args
