"""What the figures in ARCHITECTURE.md come from."""
