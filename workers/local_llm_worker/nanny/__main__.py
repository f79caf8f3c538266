"""`python -m local_llm_worker.nanny --control-fd N --log-fd M`: run by the supervisor, not by people."""

from __future__ import annotations

import argparse
import os
import socket

from local_llm_worker.nanny.life import run


def main() -> None:
    """Reads the two inherited file descriptors from the command line and stays until nothing is left."""
    parser = argparse.ArgumentParser(prog="local_llm_worker.nanny", description=__doc__)
    parser.add_argument(
        "--control-fd", type=int, required=True, help="a Unix stream socket to the supervisor"
    )
    parser.add_argument("--log-fd", type=int, required=True, help="becomes the worker's stdout and stderr")
    options = parser.parse_args()
    # Under the lowest free number: `select` takes none above 1023, and a supervisor with a thousand
    # connections hands down one that is.
    connection = socket.socket(fileno=os.dup(options.control_fd))
    os.close(options.control_fd)
    run(connection, options.log_fd)


if __name__ == "__main__":
    main()
