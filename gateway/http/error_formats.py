"""Errors as JSON and as events, in the dialects that clients speak. A route names its formats; errors carry facts."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.errors import GatewayError
from gateway.core.escaping import for_json
from gateway.core.upstream_errors import UpstreamRefused, UpstreamReported

Redact: TypeAlias = Callable[[str], str]
"""Makes secrets unreadable: errors quote what the client wrote, and that may be a secret in the wrong place."""

ErrorFormat: TypeAlias = Callable[[GatewayError, Redact, str], bytes]
"""Renders the body of an error response. The last parameter is the id of the request."""

EventFormat: TypeAlias = Callable[[bytes, bytes, bytes], bytes]
"""Renders the last event of a stream from the body of the error, and from the first and the last bytes that were sent."""

_SEQUENCE_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d{1,15})')
"""Within a string the quotation marks would have backslashes."""

_ANTHROPIC_TYPES: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
        413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 504: "timeout_error",
        529: "overloaded_error",
    }
)  # fmt: skip


def openai_error(error: GatewayError, redact: Redact, _request_id: str = "") -> bytes:
    """Renders OpenAI's error object with all four keys. An upstream's own error in that shape is kept as it came."""
    if isinstance(error, UpstreamRefused | UpstreamReported) and error.openai_body is not None:
        return error.openai_body
    fields = {
        "message": redact(error.message),
        "type": error.kind,
        "param": None if error.param is None else redact(error.param),
        "code": error.code,
    }
    return for_json(msgspec.json.encode({"error": fields}))


def openai_event(body: bytes, _first: bytes = b"", _last: bytes = b"") -> bytes:
    """Renders the error as the event that chat and completions have."""
    return sse.encode_event(body)


def responses_event(body: bytes, first: bytes, last: bytes) -> bytes:
    """Renders ``response.failed``, with the id of the response that began and the number behind that of the last event.

    Codex listens to that event alone; OpenAI's libraries raise only for the ``error`` at its top level.
    """
    error = _object(body).get("error")
    told = error if isinstance(error, dict) else {}
    response = _begun_response(first)
    failed = {
        "type": "response.failed",
        "sequence_number": _next_number(last or first),
        "response": {
            **response,
            "object": "response",
            "status": "failed",
            "error": {"code": told.get("code") or "server_error", "message": told.get("message") or ""},
        },
        "error": told,
    }
    return b"event: response.failed\n" + sse.encode_event(for_json(lenient_json.encode(failed)))


def anthropic_error(error: GatewayError, redact: Redact, request_id: str = "") -> bytes:
    """Renders Anthropic's error object. An upstream's own error in that shape is kept as it came."""
    own = error.original_body if isinstance(error, UpstreamRefused) else None
    if own is not None and _object(own).get("type") == "error":
        return own
    told = {"type": _ANTHROPIC_TYPES.get(error.status, "api_error"), "message": redact(error.message)}
    return for_json(msgspec.json.encode({"type": "error", "error": told, "request_id": request_id}))


def anthropic_event(body: bytes, _first: bytes = b"", _last: bytes = b"") -> bytes:
    """Renders the error as the event that Messages have."""
    return b"event: error\n" + sse.encode_event(body)


FOLLOWS_REPORTS = frozenset({responses_event})
"""Formats whose event also follows one in which the upstream itself has reported the error: OpenAI's clients take the event
``error`` of Responses for an ordinary one, and raise nothing."""


def _next_number(sent: bytes) -> int:
    """Returns the number of the event behind those that were sent last; 0 where they have none."""
    numbers = _SEQUENCE_NUMBER.findall(sent)
    return int(numbers[-1]) + 1 if numbers else 0


def _begun_response(first: bytes) -> dict[str, Any]:
    """Returns the response of the first event that has one, with what its clients need of it."""
    for event in sse.split_events(first):
        response = _object(sse.event_data(event) or b"").get("response")
        if isinstance(response, dict):
            return {name: response[name] for name in ("id", "created_at", "model") if name in response}
    return {}


def _object(document: bytes) -> dict[str, Any]:
    try:
        content = lenient_json.decode(document)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
