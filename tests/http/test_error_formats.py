"""Errors as OpenAI's clients expect them."""

import json

from gateway.core.errors import BadRequest
from gateway.core.upstream_errors import UpstreamRefused
from gateway.http.error_formats import openai_error


def test_all_four_keys_are_there() -> None:
    error = json.loads(openai_error(BadRequest("no"), str))["error"]
    assert error == {"message": "no", "type": "invalid_request_error", "param": None, "code": None}


def test_what_the_client_wrote_is_redacted() -> None:
    error = json.loads(openai_error(BadRequest("a secret", param="a secret", code="x"), lambda text: text.upper()))
    assert (error["error"]["message"], error["error"]["param"], error["error"]["code"]) == ("A SECRET", "A SECRET", "x")


def test_an_upstreams_own_error_is_kept() -> None:
    body = b'{"error":{"message":"theirs"}}'
    assert openai_error(UpstreamRefused(429, "too many", {}, body), str.upper) == body
    assert json.loads(openai_error(UpstreamRefused(429, "too many", {}), str))["error"]["type"] == "upstream_error"
