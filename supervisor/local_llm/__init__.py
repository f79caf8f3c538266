"""The supervisor: the one process a client talks to."""

__version__ = "0.1.0"
