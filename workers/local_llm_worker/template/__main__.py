"""`python -m local_llm_worker.template --engine E --control-fd N`: run by the supervisor, not by people."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from local_llm_worker.template.engines import ENGINES
from local_llm_worker.template.life import run

_REEXECUTED = "_LOCAL_LLM_TEMPLATE_PRELOADED"


def main() -> None:
    """Reads the command line, and stays until the supervisor hangs up."""
    parser = argparse.ArgumentParser(prog="local_llm_worker.template", description=__doc__)
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    parser.add_argument(
        "--control-fd", type=int, required=True, help="a Unix stream socket to the supervisor"
    )
    parser.add_argument("--architectures", nargs="*", default=[], help="model classes worth importing")
    options = parser.parse_args()
    engine = ENGINES[options.engine](options.architectures)
    # The dynamic linker reads LD_PRELOAD once, when a program starts.
    if os.environ.pop(_REEXECUTED, None) is None:
        environment = engine.library_environment()
        if environment:
            os.environ.update(environment)
            os.environ[_REEXECUTED] = "1"
            os.set_inheritable(options.control_fd, True)
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell is the point
    run(socket.socket(fileno=options.control_fd), engine)


if __name__ == "__main__":
    main()
