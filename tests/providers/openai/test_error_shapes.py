"""The errors of many upstreams: what they say stays, what is missing of OpenAI's four keys is filled in."""

from typing import Any

import pytest

from gateway.providers.openai.error_shapes import decode, is_about_content, named_status, read_error

OPENAI = {"message": "m", "type": "t", "param": "p", "code": "c"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"error": {**OPENAI, "extra": [1]}}, {**OPENAI, "extra": [1]}),
        (
            {"error": {"message": "m", "type": "invalid_request_error"}},
            {"message": "m", "type": "invalid_request_error", "param": None, "code": None},
        ),
        (
            {"error": {"message": "m"}},
            {"message": "m", "type": "upstream_error", "param": None, "code": "upstream_error"},
        ),
        ({"error": "m", "code": 7}, {"message": "m", "type": "upstream_error", "param": None, "code": 7}),
        (
            {"error": "m", "error_type": "overloaded"},
            {"message": "m", "type": "overloaded", "param": None, "code": None},
        ),
        (
            {"error": {"message": {"a": 1}, **{"type": "t"}}},
            {"message": '{"a":1}', "type": "t", "param": None, "code": None},
        ),
        (
            {"object": "error", "message": "m", "type": "T", "code": 400},
            {"object": "error", "message": "m", "type": "T", "param": None, "code": 400},
        ),
        (
            {"detail": [{"msg": "required"}]},
            {
                "detail": [{"msg": "required"}],
                "message": '[{"msg":"required"}]',
                "type": "upstream_error",
                "param": None,
                "code": "upstream_error",
            },
        ),
        (
            [{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}],
            {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "type": "upstream_error", "param": None},
        ),
        (
            {"title": "Too many", "status": 429},
            {
                "title": "Too many",
                "status": 429,
                "message": "Too many",
                "type": "upstream_error",
                "param": None,
                "code": "upstream_error",
            },
        ),
    ],
)
def test_errors_are_completed(content: Any, expected: dict[str, Any]) -> None:
    found = read_error(content)
    assert found is not None
    assert found.document["error"] == expected
    assert found.message == expected["message"]


def test_what_stands_beside_the_error_stays() -> None:
    found = read_error({"error": {"message": "m"}, "user_id": "u"})
    assert found is not None
    assert found.document["user_id"] == "u"


@pytest.mark.parametrize("content", [None, 5, "x", [], [1], {}, {"error": None}, {"error": {}}, {"choices": []}])
def test_what_reports_no_error(content: Any) -> None:
    assert read_error(content) is None


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"error": {"code": 429}}, 429),
        ({"error": {"code": "503"}}, 503),
        ({"error": {"status": 500, "code": "x"}}, 500),
        ({"error": "busy", "status_code": 503}, 503),
        ({"error": {"type": "overloaded_error"}}, 529),
        ({"error": {"code": "model_not_found", "type": "invalid_request_error"}}, 404),
        ({"error": {"type": "invalid_request_error", "code": "x"}}, 400),
        ({"error": {"status": "RESOURCE_EXHAUSTED"}}, 429),
        ({"type": "error", "code": "rate_limit_exceeded"}, 429),
        ({"error": {"code": True}}, None),
        ({"error": {"code": 200, "type": "made up"}}, None),
        ({"error": {"code": "1e2"}}, None),
    ],
)
def test_the_status_that_an_error_names(document: dict[str, Any], status: int | None) -> None:
    assert named_status(document) == status


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "content_filter"}, True),
        ({"type": "moderation"}, True),
        ({"metadata": {"reasons": ["violence"]}}, True),
        ({"metadata": {"provider_name": "P"}}, False),
        ({"code": "invalid_api_key"}, False),
    ],
)
def test_errors_about_content(error: dict[str, Any], expected: bool) -> None:
    assert is_about_content({"error": error}) is expected


@pytest.mark.parametrize(
    ("body", "content", "is_framed"),
    [
        (b'{"a": 1}', {"a": 1}, False),
        (b'data: {"a": 1}\n\n', {"a": 1}, True),
        (b'event: error\ndata: {"a": 1}', {"a": 1}, True),
        (b": comment\n\ndata: x\n\n", None, False),
        (b"<html>", None, False),
        (b"", None, False),
    ],
)
def test_bodies_of_errors_are_decoded(body: bytes, content: Any, is_framed: bool) -> None:
    assert decode(body) == (content, is_framed)
