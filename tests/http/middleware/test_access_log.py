"""One line for each request, without its query, and its metrics."""

import io
import json
from typing import Any

import pytest

from gateway.auth.roles import Access
from gateway.core.errors import BadRequest, Unauthenticated
from gateway.core.escaping import is_shown
from gateway.http.context import RequestContext, Route
from gateway.http.middleware.access_log import AccessLog
from gateway.http.response import Response
from gateway.observability.logging import LogWriter
from gateway.observability.metrics import Metrics
from gateway.observability.redaction import Redactor
from tests.support.connection import context

SECRET = "sk-configured-secret-of-the-gateway"


async def endpoint(ctx: RequestContext) -> Response:
    return Response(200, {})


class Lines:
    """Keeps lines."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write_bytes(self, line: bytes) -> None:
        self.written.append(line)


def logged(ctx: RequestContext, status: int = 200, *, as_json: bool = True) -> tuple[bytes, str]:
    """Returns the line and the page of metrics."""
    metrics, lines = Metrics(), Lines()
    AccessLog(metrics, lines, Redactor([SECRET]), as_json).after(ctx, status)  # type: ignore[arg-type]
    [line] = lines.written
    return line, metrics.render().decode()


def fields(ctx: RequestContext, status: int = 200) -> dict[str, Any]:
    return dict(json.loads(logged(ctx, status)[0]))


def test_a_line_names_the_request_and_not_its_query() -> None:
    ctx = context("GET", "/v1/models?token=sk-in-a-query")
    ctx.bytes_sent = 12
    line = fields(ctx, 404)
    assert (line["method"], line["path"], line["status"], line["bytes"]) == ("GET", "/v1/models", 404, 12)
    assert (line["request_id"], line["client"], line["token_id"]) == (ctx.id, "127.0.0.1", None)
    assert "sk-in-a-query" not in json.dumps(line)


@pytest.mark.parametrize("as_json", [True, False])
def test_secrets_are_redacted(as_json: bool) -> None:
    ctx = context("GET", f"/v1/{SECRET}", [("X-Client-Request-Id", SECRET)])
    line, _ = logged(ctx, as_json=as_json)
    assert SECRET.encode() not in line


def test_console_lines_keep_to_one_line() -> None:
    line, _ = logged(context("GET", "/v1/\x1b[31m\n"), as_json=False)
    assert b"\n" not in line
    assert b"\x1b" not in line


def test_requests_are_counted_by_the_pattern_of_their_route() -> None:
    ctx = context("GET", "/v1/models/secret-name")
    ctx.route = Route(("GET",), "/v1/models/{model...}", Access.PUBLIC, endpoint)
    _, page = logged(ctx, 499)
    assert 'gateway_requests_total{route="/v1/models/{model...}",status="499"} 1.0' in page
    assert "secret-name" not in page


def test_without_lines_it_only_counts() -> None:
    metrics = Metrics()
    AccessLog(metrics, None, Redactor([]), True).after(context(), 200)
    assert 'gateway_requests_total{route="unknown",status="200"} 1.0' in metrics.render().decode()


@pytest.mark.parametrize("as_json", [True, False])
def test_a_line_shows_nothing_that_acts_on_a_terminal(as_json: bool) -> None:
    ctx = context("GET", "/v1/\x9b\u202e\x7f", [("X-Client-Request-Id", "\x9b31m\u2028")])
    line, _ = logged(ctx, as_json=as_json)
    stream = io.StringIO()
    LogWriter(stream).write_bytes(line)
    assert all(map(is_shown, stream.getvalue().rstrip("\n")))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_refusal_has_its_reason(status: int, as_json: bool) -> None:
    ctx = context("GET", "/v1/models")
    ctx.error = Unauthenticated(f"Invalid API key provided: sk-abcd***6789 (it is expired). {SECRET}")
    line, _ = logged(ctx, status, as_json=as_json)
    assert b"sk-abcd***6789 (it is expired)" in line
    assert SECRET.encode() not in line


def test_other_statuses_have_no_reason() -> None:
    ctx = context("GET", "/v1/models")
    ctx.error = BadRequest("a message with what the client has sent")
    assert fields(ctx, 400)["reason"] is None
    assert fields(context("GET", "/v1/models"), 401)["reason"] is None
