"""Everything that can be answered to a client instead of what it asked for.

Code below the HTTP floor raises one of these; ``http/pipeline`` alone turns them into bytes. The texts and codes follow
OpenAI's, because clients branch on them::

    GatewayError
    ├── BadRequest 400          ├── RequestTimeout 408       ├── UpstreamFailed (type upstream_error)
    ├── Unauthenticated 401     ├── RequestTooLarge 413      │   ├── UpstreamUnreachable 502
    ├── Forbidden 403           ├── UnsupportedEncoding 415  │   ├── UpstreamInvalid 502
    ├── NotFound 404            ├── InternalError 500        │   ├── UpstreamTimeout 504
    ├── ModelNotFound 404       ├── RateLimited 429          └── UpstreamRefused (the upstream's own status)
    ├── MethodNotAllowed 405    │   └── TokensLimited        (and UpstreamReported: told in the stream already)
    └── Conflict 409            ├── QuotaExceeded 429
                                └── Unavailable 503
                                    ├── StoreUnavailable
                                    └── Draining
"""

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import msgspec


class GatewayError(Exception):
    """An answer with a status, in OpenAI's error shape."""

    status: int = 500
    type: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.headers: Mapping[str, str] = headers or {}

    def body(self, mask: Callable[[str], str] = str) -> bytes:
        """The JSON object that every error answer consists of: all four keys, always.

        ``mask`` makes secrets unreadable: errors quote what the client wrote, and that may be a secret in the wrong place.
        """
        param = None if self.param is None else mask(self.param)
        error = {"message": mask(self.message), "type": self.type, "param": param, "code": self.code}
        return msgspec.json.encode({"error": error})


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class Unauthenticated(GatewayError):
    status = 401
    type = "invalid_request_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"WWW-Authenticate": "Bearer"})


class UnknownCredential(Unauthenticated):
    """Nobody's, as far as this worker knows: another one may have made it a moment ago."""


class Forbidden(GatewayError):
    status = 403
    type = "permission_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, code="insufficient_permissions", param=param)


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    """Unknown and forbidden models answer alike, so that a token cannot probe for names."""

    def __init__(self, model: str) -> None:
        message = f"The model `{model}` does not exist or you do not have access to it."
        super().__init__(message, code="model_not_found", param="model")


class MethodNotAllowed(GatewayError):
    status = 405
    type = "invalid_request_error"

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            f"Not allowed to {method} on {path}. Allowed: {', '.join(allowed)}.",
            code="method_not_supported",
            headers={"Allow": ", ".join(allowed)},
        )


class Conflict(GatewayError):
    """What was asked for does not go with the state of things."""

    status = 409
    type = "invalid_request_error"


class RequestTimeout(GatewayError):
    status = 408
    type = "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="request_timeout", headers={"Connection": "close"})


class RequestTooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        message = f"The request body is larger than the {limit_bytes} bytes that this gateway accepts."
        super().__init__(message, code="request_too_large", headers={"Connection": "close"})


class UnsupportedEncoding(GatewayError):
    status = 415
    type = "invalid_request_error"

    def __init__(self, encoding: str) -> None:
        message = f"Compressed request bodies are not accepted ({encoding[:40]!r}). Send it plain."
        super().__init__(message, code="unsupported_encoding", headers={"Connection": "close"})


class RateLimited(GatewayError):
    """Too much for now. ``wait_seconds`` is None where waiting is no use: OpenAI's clients then do not try again."""

    status = 429
    type = "requests"

    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message, code="rate_limit_exceeded", headers=_when_to_retry(wait_seconds))


class TokensLimited(RateLimited):
    """Too many model tokens."""

    type = "tokens"


class QuotaExceeded(GatewayError):
    """There is no money for it. ``wait_seconds`` until there is new money, None where only a person can mend it."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str, wait_seconds: float | None = None, *, param: str | None = None) -> None:
        headers = {**_when_to_retry(wait_seconds), "x-should-retry": "false"}
        super().__init__(message, code="insufficient_quota", param=param, headers=headers)


_LONGEST_WAIT_THAT_CLIENTS_KEEP = 60.0
"""Seconds. Most versions of OpenAI's clients take a longer one for none and come back at once."""


def _when_to_retry(wait_seconds: float | None) -> dict[str, str]:
    if wait_seconds is None:
        return {"x-should-retry": "false"}
    milliseconds = max(1, math.ceil(wait_seconds * 1000))
    headers = {"Retry-After": str(math.ceil(milliseconds / 1000)), "retry-after-ms": str(milliseconds)}
    if wait_seconds > _LONGEST_WAIT_THAT_CLIENTS_KEEP:
        headers["x-should-retry"] = "false"
    return headers


class InternalError(GatewayError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"The gateway had an error. The request id is {request_id}.", code="internal_error")


class UpstreamFailed(GatewayError):
    """The upstream is at fault and gave no answer of its own."""

    status = 502
    type = "upstream_error"


class UpstreamUnreachable(UpstreamFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_unreachable")


class UpstreamInvalid(UpstreamFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_invalid")


class UpstreamTimeout(UpstreamFailed):
    status = 504

    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_timeout")


class UpstreamReported(UpstreamFailed):
    """The upstream has told the client of its failure, in the stream itself. Only the connection is left to be broken.

    A backend raises it from an event stream, behind the event that reports the error."""

    def __init__(self) -> None:
        super().__init__("The upstream reported an error in its stream.", code="upstream_error")


class UpstreamRefused(UpstreamFailed):
    """The upstream's own error: its status, and its body when that is already OpenAI-shaped."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        super().__init__(message, code="upstream_error", headers=headers)
        self.status = status
        self._body = body

    def body(self, mask: Callable[[str], str] = str) -> bytes:
        return super().body(mask) if self._body is None else self._body


class Unavailable(GatewayError):
    status = 503
    type = "server_error"


class StoreUnavailable(Unavailable):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="store_unavailable", headers={"Retry-After": "2"})


class Draining(Unavailable):
    def __init__(self) -> None:
        message = "The gateway is shutting down. Please try again."
        super().__init__(message, code="draining", headers={"Retry-After": "1", "Connection": "close"})
