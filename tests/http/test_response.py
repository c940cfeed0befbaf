"""Responses as values."""

import pytest

from gateway.http.response import Response, json_response


def test_json_of_the_gateway_is_not_kept_by_caches() -> None:
    response = json_response(201, {"a": 1})
    assert (response.status, response.body) == (201, b'{"a":1}')
    assert dict(response.headers) == {"Content-Type": "application/json", "Cache-Control": "no-store"}


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("application/json", False),
        (None, False),
    ],
)
def test_event_streams_are_recognised(content_type: str | None, expected: bool) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert Response(200, headers).is_event_stream is expected
