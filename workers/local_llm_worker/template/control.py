"""The template's end of the control socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

_DESCRIPTORS = 2


class Control:
    """Requests in, events out.

    Args:
        connection: a Unix stream socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(True)
        self._connection = connection

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def close(self) -> None:
        """This process speaks no more."""
        self._connection.close()

    def requests(self) -> Iterator[list[int]]:
        """The descriptors of each request to fork, which the caller closes; ends when the supervisor does."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._connection, 4096, _DESCRIPTORS)
            except ConnectionError:
                return
            if not message:
                return
            if len(descriptors) == _DESCRIPTORS:
                yield descriptors
                continue
            for each in descriptors:
                os.close(each)
            self.send("refused", message="expected two file descriptors")

    def send(self, event: str, **details: object) -> None:
        """Tells the supervisor, if it still listens."""
        with suppress(OSError):
            self._connection.sendall(json.dumps({"event": event, **details}).encode() + b"\n")
