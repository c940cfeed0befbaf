"""Defines what a provider may ask of the network, and what it gets: a request in, a response with its head and chunks out."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import NamedTuple, Protocol

import msgspec


class Timeouts(NamedTuple):
    """Holds limits in seconds: to connect, from the request to the first content, between two chunks after that.

    There is none for the whole: a long response is not a slow one. The head of a response is no content: some servers send it
    before they have read the prompt.
    """

    connect: float
    first_byte: float
    chunk: float


class TransportRequest(msgspec.Struct, frozen=True):
    """Describes one request. ``url`` is sent as it is, already encoded; ``headers`` are sent as they are, too."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterable[bytes] | None = None


class TransportResponse(Protocol):
    """Holds a response whose head has arrived. Whoever got it must ``close`` it."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by their names in small letters. Of several with one name it has the first."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, decompressed. Raises UpstreamFailed where it breaks off or takes too long."""

    def expect_content(self) -> None:
        """Says that whoever reads calls ``begin_content``. Otherwise the content begins with the first byte that is no blank."""

    def begin_content(self) -> None:
        """Says that content has come: from now on the limit between two chunks counts."""

    def limit_pause(self, seconds: float) -> None:
        """Limits the time between two chunks to ``seconds``, where the limit is longer."""

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
