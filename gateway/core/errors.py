"""Errors that are answered to clients. They carry facts: ``http/error_formats`` renders them in the format of the client.

Those about an upstream are in ``upstream_errors``. Every package may raise them; ``http/pipeline`` alone turns them into
responses. The messages and codes follow OpenAI's, because clients branch on them::

    GatewayError
    ├── BadRequest 400          ├── RequestTimeout 408       ├── UpstreamFailed (type upstream_error)
    ├── Unauthenticated 401     ├── RequestTooLarge 413      │   ├── UpstreamUnreachable 502
    ├── Forbidden 403           ├── UnsupportedEncoding 415  │   ├── UpstreamInvalid 502
    ├── NotFound 404            ├── InternalError 500        │   ├── UpstreamTimeout 504
    ├── ModelNotFound 404       ├── RateLimited 429          ├── UpstreamRefused (the upstream's own status)
    ├── MethodNotAllowed 405    │   └── TokensLimited        ├── UpstreamAuthFailed 502
    ├── Conflict 409            ├── QuotaExceeded 429        └── UpstreamReported (told in the stream already)
    ├── UpgradeRequired 426     └── Unavailable 503
    └── HeaderTooLarge 431          ├── StoreUnavailable
                                    ├── TooManyReads
                                    ├── ReportTimeout
                                    ├── BodyMemoryExceeded
                                    └── Draining
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class GatewayError(Exception):
    """An error with a status. ``kind`` is what OpenAI calls its type; ``headers`` go with the response.

    ``code`` is for programs, ``param`` names the field of the request that is wrong.
    """

    status: int = 500
    kind: ClassVar[str] = "server_error"

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


DO_NOT_RETRY: Mapping[str, str] = MappingProxyType({"x-should-retry": "false"})
"""Tells OpenAI's and Anthropic's clients that the same request gets the same answer; some retry a 401 for minutes."""


class BadRequest(GatewayError):
    status = 400
    kind = "invalid_request_error"


class Unauthenticated(GatewayError):
    status = 401
    kind = "invalid_request_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"WWW-Authenticate": "Bearer", **DO_NOT_RETRY})


class UnknownCredential(Unauthenticated):
    """No token has this secret, as far as this worker knows. Another worker may have created one a moment ago."""


class Forbidden(GatewayError):
    status = 403
    kind = "permission_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message, code="insufficient_permissions", param=param, headers=DO_NOT_RETRY)


class NotFound(GatewayError):
    status = 404
    kind = "invalid_request_error"


class ModelNotFound(NotFound):
    """A model is unknown or not allowed. Both look alike, so that a token cannot probe for names."""

    def __init__(self, model: str) -> None:
        message = f"The model `{model}` does not exist or you do not have access to it."
        super().__init__(message, code="model_not_found", param="model")


class MethodNotAllowed(GatewayError):
    status = 405
    kind = "invalid_request_error"

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            f"Not allowed to {method} on {path}. Allowed: {', '.join(allowed)}.",
            code="method_not_supported",
            headers={"Allow": ", ".join(allowed)},
        )


class UpgradeRequired(GatewayError):
    """A WebSocket was asked for. Of all refusals it is 426 that lets clients turn to plain HTTP at once."""

    status = 426
    kind = "invalid_request_error"

    def __init__(self) -> None:
        message = "This gateway does not relay WebSockets. Send the request over plain HTTP."
        super().__init__(message, code="unsupported_upgrade", headers={"Upgrade": "websocket", **DO_NOT_RETRY})


class HeaderTooLarge(GatewayError):
    """``limit_bytes`` is for all headers together; ``limit_count`` is given where there are too many of them."""

    status = 431
    kind = "invalid_request_error"

    def __init__(self, limit_bytes: int, limit_count: int | None = None) -> None:
        message = (
            f"The request line and the headers have more than the {limit_bytes} bytes that this gateway accepts. Whoever runs it "
            "can allow more: GATEWAY_MAX_HEADER_KB."
        )
        if limit_count is not None:
            message = f"The request has more than the {limit_count} headers that this gateway accepts."
        super().__init__(message, code="header_too_large", headers={"Connection": "close"})


class Conflict(GatewayError):
    """The request does not fit the present state of the thing that it is about."""

    status = 409
    kind = "invalid_request_error"


class RequestTimeout(GatewayError):
    status = 408
    kind = "invalid_request_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="request_timeout", headers={"Connection": "close"})


class RequestTooLarge(GatewayError):
    status = 413
    kind = "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        message = f"The request body is larger than the {limit_bytes} bytes that this gateway accepts."
        super().__init__(message, code="request_too_large", headers={"Connection": "close"})


class UnsupportedEncoding(GatewayError):
    status = 415
    kind = "invalid_request_error"

    def __init__(self, encoding: str) -> None:
        message = f"Compressed request bodies are not accepted ({encoding[:40]!r}). Send it plain."
        super().__init__(message, code="unsupported_encoding", headers={"Connection": "close"})


class RateLimited(GatewayError):
    """Too many requests. ``wait_seconds`` is None where waiting does not help: OpenAI's clients then do not retry."""

    status = 429
    kind = "requests"

    def __init__(self, message: str, wait_seconds: float | None) -> None:
        super().__init__(message, code="rate_limit_exceeded", headers=_when_to_retry(wait_seconds))


class TokensLimited(RateLimited):
    """Too many language-model tokens."""

    kind = "tokens"


class QuotaExceeded(GatewayError):
    """The budget does not allow it. ``wait_seconds`` until the next window, None where only a person can raise the budget."""

    status = 429
    kind = "insufficient_quota"

    def __init__(self, message: str, wait_seconds: float | None = None, *, param: str | None = None) -> None:
        headers = {**_when_to_retry(wait_seconds), "x-should-retry": "false"}
        super().__init__(message, code="insufficient_quota", param=param, headers=headers)


_LONGEST_WAIT = 60.0
"""In seconds. Most versions of OpenAI's clients ignore a longer wait and retry at once; urllib3 sleeps as long as it is told,
for hours. The message has the true time."""


def _when_to_retry(wait_seconds: float | None) -> dict[str, str]:
    """Returns the headers that tell when to try again; None where waiting does not help."""
    if wait_seconds is None:
        return dict(DO_NOT_RETRY)
    milliseconds = max(1, math.ceil(min(wait_seconds, _LONGEST_WAIT) * 1000))
    headers = {"Retry-After": str(math.ceil(milliseconds / 1000)), "retry-after-ms": str(milliseconds)}
    return {**headers, **DO_NOT_RETRY} if wait_seconds > _LONGEST_WAIT else headers


class InternalError(GatewayError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"The gateway had an error. The request id is {request_id}.", code="internal_error")


class Unavailable(GatewayError):
    status = 503
    kind = "server_error"


class StoreUnavailable(Unavailable):
    def __init__(self, message: str) -> None:
        super().__init__(message, code="store_unavailable", headers={"Retry-After": "2"})


class TooManyReads(Unavailable):
    """So many reports and lists are being made that there is no thread for another one."""

    def __init__(self, wait_seconds: float) -> None:
        message = "The gateway is making as many reports and lists as it may at once. Please try again."
        super().__init__(message, code="too_many_reads", headers=_when_to_retry(wait_seconds))


class ReportTimeout(Unavailable):
    """A report takes too long. Sent again, it would take as long again."""

    def __init__(self, seconds: float) -> None:
        message = (
            f"The report was given up after {seconds:g} s. Ask for less: a shorter time (`from`, `to`), `bucket=day`, "
            "or one token (`token_id`)."
        )
        super().__init__(message, code="report_timeout", headers=_when_to_retry(None))


class BodyMemoryExceeded(Unavailable):
    """The bodies of all requests take up as much memory as they may."""

    def __init__(self, wait_seconds: float) -> None:
        message = "The bodies of the requests in progress take up as much memory as they may. Please try again."
        super().__init__(message, code="body_memory_exceeded", headers=_when_to_retry(wait_seconds))


class Draining(Unavailable):
    def __init__(self) -> None:
        message = "The gateway is shutting down. Please try again."
        super().__init__(message, code="draining", headers={"Retry-After": "1", "Connection": "close"})
