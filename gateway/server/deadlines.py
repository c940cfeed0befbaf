"""Deadlines of a client's connection: for what it has to send, and for bytes that it does not take."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

CHECKS_WITHOUT_PROGRESS = 4


class ConnectionTimeouts(NamedTuple):
    """Holds limits in seconds: from the first byte of a head to its last, and for a write that makes no progress."""

    head: float = 15.0
    write: float = 60.0


class ReadDeadline:
    """Calls ``on_late`` where what a client has to send is not complete in time."""

    __slots__ = ("_on_late", "ends_at")

    def __init__(self, seconds: float, on_late: Callable[[], None]) -> None:
        self._on_late = on_late
        self.ends_at = time.monotonic() + seconds

    def expire(self) -> None:
        """Calls the function. It has to stop the deadline."""
        self._on_late()


class WriteDeadline:
    """Watches the bytes that a client has not taken yet, and aborts the connection where none is taken for too long.

    ``seconds`` is looked at in four parts, so that an abort comes after one part more at most. Progress counts, however small:
    a client that reads slowly but steadily is served.
    """

    __slots__ = ("_on_empty", "_part", "_stalled", "_taken", "_transport", "ends_at", "resumed")

    def __init__(self, transport: asyncio.Transport, seconds: float, on_empty: Callable[[], None]) -> None:
        """``on_empty`` is called once all bytes have been taken. It has to stop the deadline."""
        self._transport = transport
        self._part = seconds / CHECKS_WITHOUT_PROGRESS
        self._on_empty = on_empty
        self._stalled = 0
        self.resumed = 0
        """How often the transport has asked for more. A full buffer may have the same size as before by chance."""
        self._taken = (0, transport.get_write_buffer_size())
        self.ends_at = time.monotonic() + self._part

    def expire(self) -> None:
        """Looks whether the client has taken anything since the last time."""
        waiting = self._transport.get_write_buffer_size()
        if waiting == 0:
            self._on_empty()
            return
        taken = (self.resumed, waiting)
        self._stalled = self._stalled + 1 if taken == self._taken else 0
        self._taken = taken
        self.ends_at = time.monotonic() + self._part
        if self._stalled >= CHECKS_WITHOUT_PROGRESS:
            self._transport.abort()
