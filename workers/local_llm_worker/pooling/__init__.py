"""The transformers worker: embeddings, reranking and scoring over HTTP."""
