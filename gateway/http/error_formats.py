"""Errors as JSON, in the dialects that clients speak. A route names its format; the error itself carries only facts."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.escaping import for_json
from gateway.core.upstream_errors import UpstreamRefused

Redact: TypeAlias = Callable[[str], str]
"""Makes secrets unreadable: errors quote what the client wrote, and that may be a secret in the wrong place."""

ErrorFormat: TypeAlias = Callable[[GatewayError, Redact], bytes]
"""Renders the body of an error response, which is also the data of an error event in a stream."""


def openai_error(error: GatewayError, redact: Redact) -> bytes:
    """Renders OpenAI's error object with all four keys. An upstream's own error in that shape is kept as it came."""
    if isinstance(error, UpstreamRefused) and error.openai_body is not None:
        return error.openai_body
    fields = {
        "message": redact(error.message),
        "type": error.kind,
        "param": None if error.param is None else redact(error.param),
        "code": error.code,
    }
    return for_json(msgspec.json.encode({"error": fields}))
