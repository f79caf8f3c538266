"""One worker's life: its command line, its processes, its readiness, its end."""
