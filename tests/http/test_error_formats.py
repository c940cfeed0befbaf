"""Errors as OpenAI's clients expect them."""

import json

import pytest

from gateway.core.errors import BadRequest
from gateway.core.upstream_errors import UpstreamInvalid, UpstreamRefused
from gateway.http.error_formats import anthropic_error, anthropic_event, openai_error, openai_event, responses_event
from tests.support.gateway import BEARER, KEY, StartGateway


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


def test_messages_have_anthropics_errors() -> None:
    body = json.loads(anthropic_error(BadRequest("no model", code="x"), str.upper, "req_1"))
    told = {"type": "invalid_request_error", "message": "NO MODEL"}
    assert body == {"type": "error", "error": told, "request_id": "req_1"}
    assert json.loads(anthropic_error(UpstreamInvalid("x"), str))["error"]["type"] == "api_error"


def test_anthropics_own_error_is_kept_as_it_came() -> None:
    came = b'{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}'
    error = UpstreamRefused(529, "m", {}, b"{}", came)
    assert anthropic_error(error, str) == came
    other = json.loads(anthropic_error(UpstreamRefused(529, "m", {}, b"{}", b"<html>"), str))
    assert other["error"]["type"] == "overloaded_error"


def test_a_response_that_began_fails_with_its_id() -> None:
    body = openai_error(UpstreamInvalid("broke off"), str)
    first = b': x\n\nevent: response.created\ndata: {"type":"response.created","response":{"id":"r1","model":"m"}}\n\n'
    last = b'data: {"type":"x","sequence_number": 7,"delta":"\\"sequence_number\\":99"}\n\n'
    event = responses_event(body, first, last)
    assert event.startswith(b"event: response.failed\ndata: ")
    content = json.loads(event.partition(b"data: ")[2])
    assert content["type"] == "response.failed"
    assert (content["response"]["id"], content["response"]["status"]) == ("r1", "failed")
    assert content["response"]["error"] == {"code": "upstream_invalid", "message": "broke off"}
    assert content["error"]["type"] == "upstream_error"
    assert content["sequence_number"] == 8
    unknown = json.loads(responses_event(body, b"data: x\n\n", b"").partition(b"data: ")[2])
    assert ("id" in unknown["response"], unknown["sequence_number"]) == (False, 0)


def test_errors_as_events() -> None:
    assert openai_event(b"{}", b"") == b"data: {}\n\n"
    assert anthropic_event(b"{}", b"") == b"event: error\ndata: {}\n\n"


@pytest.mark.parametrize(("method", "path", "status"), [
    ("OPTIONS", "/v1/messages", 405), ("TRACE", "/v1/messages/batches", 405), ("POST", "/v1/messages/%FF", 404),
])  # fmt: skip
async def test_refusals_before_the_endpoint_have_anthropics_shape_too(
    start_gateway: StartGateway, method: str, path: str, status: int
) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await gateway.request(method, path, [BEARER])
    body = reply.json()
    assert (reply.status, body["type"], sorted(body)) == (status, "error", ["error", "request_id", "type"])
    assert sorted(body["error"]) == ["message", "type"]
