"""Errors: their status, their type and code, and the headers that tell clients when to come back."""

import inspect

import pytest

from gateway.core import errors
from gateway.core.errors import GatewayError, QuotaExceeded, RateLimited

ALL = [
    (errors.BadRequest("x"), 400, "invalid_request_error", None),
    (errors.Unauthenticated("x"), 401, "invalid_request_error", None),
    (errors.UnknownCredential("x"), 401, "invalid_request_error", None),
    (errors.Forbidden("x"), 403, "permission_error", "insufficient_permissions"),
    (errors.NotFound("x"), 404, "invalid_request_error", None),
    (errors.ModelNotFound("m"), 404, "invalid_request_error", "model_not_found"),
    (errors.MethodNotAllowed("PUT", "/", ("GET",)), 405, "invalid_request_error", "method_not_supported"),
    (errors.RequestTimeout("x"), 408, "invalid_request_error", "request_timeout"),
    (errors.Conflict("x"), 409, "invalid_request_error", None),
    (errors.RequestTooLarge(1), 413, "invalid_request_error", "request_too_large"),
    (errors.UpgradeRequired(), 426, "invalid_request_error", "unsupported_upgrade"),
    (errors.HeaderTooLarge(5), 431, "invalid_request_error", "header_too_large"),
    (errors.UnsupportedEncoding("gzip"), 415, "invalid_request_error", "unsupported_encoding"),
    (errors.RateLimited("x", 1), 429, "requests", "rate_limit_exceeded"),
    (errors.TokensLimited("x", 1), 429, "tokens", "rate_limit_exceeded"),
    (errors.QuotaExceeded("x"), 429, "insufficient_quota", "insufficient_quota"),
    (errors.InternalError("req_1"), 500, "server_error", "internal_error"),
    (errors.Unavailable("x"), 503, "server_error", None),
    (errors.StoreUnavailable("x"), 503, "server_error", "store_unavailable"),
    (errors.TooManyReads(1), 503, "server_error", "too_many_reads"),
    (errors.ReportTimeout(10), 503, "server_error", "report_timeout"),
    (errors.BodyMemoryExceeded(1), 503, "server_error", "body_memory_exceeded"),
    (errors.Draining(), 503, "server_error", "draining"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), ALL, ids=lambda value: type(value).__name__)
def test_status_type_and_code(error: GatewayError, status: int, kind: str, code: str | None) -> None:
    assert (error.status, error.kind, error.code) == (status, kind, code)
    assert str(error) == error.message


def test_no_error_is_forgotten() -> None:
    defined = {one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, GatewayError)}
    assert defined - {GatewayError} == {type(error) for error, *_ in ALL}


@pytest.mark.parametrize(
    ("wait", "headers"),
    [
        (None, {"x-should-retry": "false"}),
        (0.0, {"Retry-After": "1", "retry-after-ms": "1"}),
        (0.0101, {"Retry-After": "1", "retry-after-ms": "11"}),
        (1.001, {"Retry-After": "2", "retry-after-ms": "1001"}),
        (60.0, {"Retry-After": "60", "retry-after-ms": "60000"}),
        (60.001, {"Retry-After": "60", "retry-after-ms": "60000", "x-should-retry": "false"}),
        (22 * 3600.0, {"Retry-After": "60", "retry-after-ms": "60000", "x-should-retry": "false"}),
    ],
)
def test_when_to_come_back(wait: float | None, headers: dict[str, str]) -> None:
    assert RateLimited("x", wait).headers == headers
    assert QuotaExceeded("x", wait).headers == {**headers, "x-should-retry": "false"}


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.Unauthenticated("x"), {"WWW-Authenticate": "Bearer", "x-should-retry": "false"}),
        (errors.UnknownCredential("x"), {"WWW-Authenticate": "Bearer", "x-should-retry": "false"}),
        (errors.Forbidden("x"), {"x-should-retry": "false"}),
        (errors.UpgradeRequired(), {"Upgrade": "websocket", "x-should-retry": "false"}),
        (errors.HeaderTooLarge(5), {"Connection": "close"}),
        (errors.MethodNotAllowed("PUT", "/", ("GET", "HEAD")), {"Allow": "GET, HEAD"}),
        (errors.StoreUnavailable("x"), {"Retry-After": "2"}),
        (errors.TooManyReads(1), {"Retry-After": "1", "retry-after-ms": "1000"}),
        (errors.ReportTimeout(10), {"x-should-retry": "false"}),
        (errors.BodyMemoryExceeded(1), {"Retry-After": "1", "retry-after-ms": "1000"}),
        (errors.Draining(), {"Retry-After": "1", "Connection": "close"}),
        (errors.RequestTooLarge(5), {"Connection": "close"}),
        (errors.RequestTimeout("x"), {"Connection": "close"}),
        (errors.UnsupportedEncoding("x"), {"Connection": "close"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_headers(error: GatewayError, headers: dict[str, str]) -> None:
    assert error.headers == headers
