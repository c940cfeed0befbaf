"""Responses as endpoints return them. ``RequestContext.send`` adds the headers that every response has, and sends them."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.core.escaping import for_json

EVENT_STREAM = "text/event-stream"


class Response(NamedTuple):
    """A status, headers, and a body: bytes, or an iterator of chunks as they arrive."""

    status: int
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] = b""
    closes_connection: bool = False
    """Whether the connection is closed after it, because the request was not read to its end."""

    @property
    def is_event_stream(self) -> bool:
        return self.headers.get("Content-Type", "").startswith(EVENT_STREAM)


def json_response(status: int, content: Any) -> Response:
    """Returns a response of the gateway's own, which no cache may keep. ``content`` is anything that msgspec encodes."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Response(status, headers, for_json(msgspec.json.encode(content)))
