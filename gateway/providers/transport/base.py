"""Defines what a provider may ask of the network, and what it gets: a request in, a response with its head and chunks out."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Protocol

import msgspec


class Timeouts(NamedTuple):
    """Holds limits in seconds: to connect, until a response begins, between two of its chunks.

    There is none for the whole: a long response is not a slow one.
    """

    connect: float
    first_byte: float
    chunk: float


class TransportRequest(msgspec.Struct, frozen=True):
    """Describes one request. ``url`` is sent as it is, already encoded; ``headers`` are sent as they are, too."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] | None = None


class TransportResponse(Protocol):
    """Holds a response whose head has arrived. Whoever got it must ``close`` it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, case-insensitive."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed. Raises UpstreamFailed where it breaks off or takes too long."""

    async def read(self, limit: int) -> bytes:
        """Returns the whole body. Raises UpstreamFailed as ``chunks`` does, and for a body of more than ``limit`` bytes."""

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it: that stops the upstream's work."""


class Transport(Protocol):
    """Sends requests. Cancelling ``send``, or closing a response early, closes the connection."""

    async def send(self, request: TransportRequest) -> TransportResponse:
        """Returns the response once its head has arrived; redirects are not followed.

        Raises UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid.
        """

    async def aclose(self) -> None:
        """Closes all connections."""
