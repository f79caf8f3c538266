"""Folders on disk become model cards."""
