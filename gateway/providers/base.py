"""What a backend is. A third party implements ``Provider`` and registers a ``create`` function; see docs/providers.md."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


class ProviderRequest(msgspec.Struct, frozen=True):
    """One call of OpenAI's API, already admitted.

    ``path`` is what stands behind ``/v1/``, encoded as the client sent it; ``query`` has no credential in it, and neither
    have ``headers``. For a JSON body ``fields`` holds its top-level values; a body of any other kind is an iterator.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = {}
    body: bytes | AsyncIterator[bytes] | None = None
    fields: Mapping[str, Any] | None = None
    model: str | None = None
    stream: bool = False


@dataclass(slots=True)
class ProviderResponse:
    """What goes back. ``body`` is bytes, or an iterator of pieces as they arrive.

    ``close`` is called once the body was read or nobody wants it any more; it must stop the work behind the answer.
    """

    status: int
    content_type: str
    body: bytes | AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None


class Provider(Protocol):
    """Answers requests. ``name`` appears in ``/healthz``, the banner and the log."""

    name: str

    async def send(self, request: ProviderRequest) -> ProviderResponse:
        """Answer one request. Raises a GatewayError for anything that is not an answer.

        An answer to ``request.stream`` must be an event stream; an error after its first piece is raised from the iterator.
        """

    async def models(self) -> list[dict[str, Any]]:
        """OpenAI's model objects: ``{"id", "object": "model", "created", "owned_by"}``."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What a backend's ``create`` function is given. Times in seconds."""

    upstream_url: str | None
    upstream_api_key: str | None
    connect_timeout: float
    first_byte_timeout: float
    chunk_timeout: float


CreateProvider = Callable[[ProviderConfig], Provider]
"""Called inside the running event loop, once a process."""
