"""One worker's life: command lines, launch, readiness, stop, and the proof that nothing is left."""
