"""Why an upstream failed stands in the log, with the address asked and the system's own words."""

import logging

import pytest

from gateway.core.upstream_errors import UpstreamAuthFailed, UpstreamFailed, UpstreamRefused, UpstreamUnreachable
from gateway.providers.openai import failure_log
from gateway.providers.transport.base import TransportRequest

REQUEST = TransportRequest("POST", "https://user:secret@host:8/v1/chat/completions?api-version=1", {})


def logged(
    caplog: pytest.LogCaptureFixture, error: UpstreamFailed, request_id: str = "req_1"
) -> list[tuple[int, dict[str, object]]]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        failure_log.note(REQUEST, error, request_id)
    return [(record.levelno, vars(record)) for record in caplog.records]


def test_the_address_and_the_causes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = UpstreamUnreachable("The upstream refuses connections.")
    error.__cause__ = OSError(111, "Connection refused")
    ((level, fields),) = logged(caplog, error)
    assert level == logging.WARNING
    assert fields["address"] == "https://host:8/v1/chat/completions"
    assert "Connection refused" in str(fields["cause"])
    assert fields["status"] == 502
    assert fields["request_id"] == "req_1"


def test_a_request_of_the_gateways_own_has_no_id(caplog: pytest.LogCaptureFixture) -> None:
    ((_, fields),) = logged(caplog, UpstreamUnreachable("x"), "")
    assert "request_id" not in fields


def test_a_refused_key_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    ((level, fields),) = logged(caplog, UpstreamAuthFailed(403, "no", {}))
    assert (level, fields["upstream_status"]) == (logging.ERROR, 403)


def test_what_concerns_the_client_alone_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(caplog, UpstreamRefused(400, "too long", {}, b"{}")) == []
    assert logged(caplog, UpstreamRefused(404, "no such model", {}, b"{}")) == []


def test_an_address_that_the_upstream_does_not_have_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ((_, fields),) = logged(caplog, UpstreamRefused(404, "page not found", {}))
    assert "GATEWAY_UPSTREAM_URL" in str(fields["message"])


def test_an_address_that_is_no_url() -> None:
    assert failure_log.shown_address("http://[") == "not a URL"
