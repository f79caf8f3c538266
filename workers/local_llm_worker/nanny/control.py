"""The nanny's end of the control socket. It survives every bad message and a supervisor that left."""

from __future__ import annotations

import json
import select
import socket
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

# A launch carries a whole environment, which Linux limits to a few MB.
MAX_MESSAGE_BYTES = 8 << 20
# A supervisor that does not read for this long (stopped in a debugger) misses the event.
SEND_SECONDS = 5.0


class Control:
    """Messages in, events out.

    Attributes:
        closed: the supervisor is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._unfinished = b""
        self._kept: list[Message] = []
        self.closed = False

    def fileno(self) -> int:
        """For selectors."""
        return self._connection.fileno()

    def wait_for_launch(self) -> Message | None:
        """The first message, or None if the supervisor left before it said what to launch."""
        while not self.closed:
            select.select([self], [], [])
            messages = self.receive()
            for position, message in enumerate(messages, start=1):
                if message.get("op") == "launch":
                    # A stop may have come right behind it: lost, the worker would outlive the order.
                    self._kept = messages[position:]
                    return message
                self.send("trouble", message="expected a launch first")
        return None

    def receive(self) -> list[Message]:
        """All complete messages that have arrived; sets `closed` at the end of the stream.

        The first call after a launch has what came together with it, for which no `select` wakes.
        """
        kept, self._kept = self._kept, []
        return kept + self._arrived()

    def _arrived(self) -> list[Message]:
        try:
            data = self._connection.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return []
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if len(self._unfinished) > MAX_MESSAGE_BYTES:
            self._unfinished = b""
            self.send("trouble", message="dropped a message without an end")
        return [message for line in lines if (message := self._decoded(line)) is not None]

    def _decoded(self, line: bytes) -> Message | None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict):
            return message
        self.send("trouble", message="not a message: " + repr(line[:100]))
        return None

    def send(self, event: str, **details: object) -> None:
        """Tells the supervisor, if it still listens."""
        data = json.dumps({"event": event, **details}).encode() + b"\n"
        # An error: it has left, or shut its side; what it wrote before may still be there to read.
        with suppress(OSError):
            while data and select.select([], [self], [], SEND_SECONDS)[1]:
                data = data[self._connection.send(data) :]
