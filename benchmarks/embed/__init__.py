"""Embeddings a second: the server beside sentence-transformers and Infinity (`make bench-embed`)."""
