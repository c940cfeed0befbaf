"""The narrow door: what a backend may ask of the network, and what it gets."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Protocol

import msgspec


class Timeouts(NamedTuple):
    """Seconds. There is no total one: a long answer is not a slow one."""

    connect: float
    first_byte: float
    chunk: float


class TransportRequest(msgspec.Struct, frozen=True):
    """``url`` is sent as it stands, already encoded."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] | None = None


class TransportResponse(Protocol):
    """An answer whose head has arrived. Whoever got it must ``close`` it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decompressed. Raises UpstreamFailed where it breaks or stalls."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamFailed, also for a body of more than ``limit`` bytes."""

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it: that stops the upstream's work."""


class Transport(Protocol):
    """Sends requests. Cancelling ``send``, or closing an answer early, closes the connection."""

    async def send(self, request: TransportRequest) -> TransportResponse:
        """Raises UpstreamUnreachable, UpstreamTimeout, UpstreamInvalid. Redirects are not followed."""

    async def aclose(self) -> None: ...
