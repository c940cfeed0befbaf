"""Defines the interface of a provider. A third party implements ``Provider`` and registers a function that creates one;
see docs/providers.md."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


class ProviderRequest(msgspec.Struct, frozen=True):
    """Describes one call of OpenAI's API that was admitted.

    ``path`` is what follows ``/v1/``, encoded as the client sent it; ``query`` has no credential in it. ``headers`` are
    those of the client's that ``request_headers`` allows, so there is no credential in them either. For a JSON body ``fields``
    holds its top-level values, for a form its texts; a body of any other kind than JSON is an iterable of chunks.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes | AsyncIterable[bytes] | None = None
    fields: Mapping[str, Any] | None = None
    model: str | None = None
    stream: bool = False
    request_id: str = ""
    """The gateway's own id of the request, for the log."""


@dataclass(slots=True)
class ProviderResponse:
    """Holds what is sent to the client. ``body`` is bytes, or an iterator of chunks as they arrive.

    ``close`` is called once the body was read or nobody wants it any more, and must stop the work behind the response. It is
    None if there is nothing to stop.
    """

    status: int
    content_type: str
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] | None = None


class Provider(Protocol):
    """Answers requests. ``name`` appears in ``/healthz``, the banner and the log."""

    name: str

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        """Returns the response to one request. Raises a GatewayError where there is none.

        The response to ``request.stream`` must be an event stream whose chunks end behind whole events; an error after its
        first chunk is raised from the iterator.
        """

    async def models(self) -> list[dict[str, Any]]:
        """Returns OpenAI's model objects: ``{"id", "object": "model", "created", "owned_by"}``. Raises a GatewayError."""

    async def aclose(self) -> None:
        """Releases what the provider holds, once, when the process shuts down."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """Holds the settings that a provider's ``create`` function is given. Times in seconds."""

    upstream_url: str | None
    upstream_api_key: str | None
    connect_timeout: float
    first_byte_timeout: float
    chunk_timeout: float


CreateProvider = Callable[[ProviderConfig], Provider]
"""Creates a provider. It is called inside the running event loop, once a process."""
