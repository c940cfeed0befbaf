"""The errors that tell of an upstream: status, type and code of each."""

import inspect

import pytest

from gateway.core import upstream_errors
from gateway.core.errors import GatewayError
from gateway.core.upstream_errors import UpstreamAuthFailed, UpstreamFailed, UpstreamRefused

ALL: list[tuple[UpstreamFailed, int, str, str | None]] = [
    (upstream_errors.UpstreamFailed("x"), 502, "upstream_error", None),
    (upstream_errors.UpstreamUnreachable("x"), 502, "upstream_error", "upstream_unreachable"),
    (upstream_errors.UpstreamInvalid("x"), 502, "upstream_error", "upstream_invalid"),
    (upstream_errors.UpstreamReported("m", None), 502, "upstream_error", "upstream_error"),
    (upstream_errors.UpstreamRefused(418, "x", {}), 418, "upstream_error", "upstream_error"),
    (upstream_errors.UpstreamAuthFailed(401, "x", {}), 502, "upstream_error", "upstream_auth"),
    (upstream_errors.UpstreamTimeout("x"), 504, "upstream_error", "upstream_timeout"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), ALL)
def test_status_type_and_code(error: UpstreamFailed, status: int, kind: str, code: str | None) -> None:
    assert (error.status, error.kind, error.code) == (status, kind, code)


def test_no_error_is_forgotten() -> None:
    defined = {one for _, one in inspect.getmembers(upstream_errors, inspect.isclass) if issubclass(one, GatewayError)}
    assert defined - {GatewayError} == {type(error) for error, *_ in ALL}


def test_a_refused_key_is_not_the_clients() -> None:
    error = UpstreamAuthFailed(401, "Incorrect API key", {"retry-after": "1"})
    assert error.headers == {"retry-after": "1", "x-should-retry": "false"}, "only a person can set another key"
    assert "the gateway's own key, not yours" in error.message
    assert "Incorrect API key" in error.message


def test_the_body_as_it_came_is_the_completed_one_unless_there_is_another() -> None:
    assert UpstreamRefused(400, "m", {}, b"completed").original_body == b"completed"
    assert UpstreamRefused(400, "m", {}, b"completed", b"came").original_body == b"came"
