"""Builds the container image and runs it for real: `make image-test`, or `python -m tests.image`.

Not collected by pytest: it needs a Docker engine and some minutes, and is a story told once, in order.

    __main__    the command line, and the phases one after the other
    machine     the engine: the machine's own, or one unpacked for this run; everything that must be undone
    engine      commands to the engine and to Compose, and what they say
    lint        the container's files against their schemas and rules
    build       cold, and after a change of code
    story       what the service does in its container
    gpu         what the engines see of a GPU, for `make image-check-gpu`
"""
