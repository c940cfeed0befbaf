"""Errors of upstreams in odd forms: OpenAI's own client gets everything that they say, with the right status."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

from tests.support.gateway import KEY
from tests.support.upstream import Behaviour, Connection, Received, always, answer
from tests.support.wire import gateway_before

BEGUN = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"r1","model":"m"}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":1,"delta":"Hi"}\n\n'
)
CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'


async def refused(folder: Path, behave: Behaviour) -> openai.APIStatusError:
    """Returns what the client raises for a chat."""
    async with clients(folder, behave) as client:
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(model="m", messages=[])
    return raised.value


@asynccontextmanager
async def clients(folder: Path, behave: Behaviour) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        gateway_before(behave, folder) as (_, gateway),
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize(("status", "body", "expected", "said"), [
    ("422 X", b'{"detail":[{"loc":["body","n"],"msg":"must be positive","type":"value_error"}]}', 422, "must be positive"),
    ("404 X", b'{"detail":"no such model"}', 404, "no such model"),
    ("400 X", b'[{"error":{"code":400,"message":"bad key","status":"INVALID_ARGUMENT"}}]', 400, "bad key"),
    ("400 X", b'["first reason","second reason"]', 400, "second reason"),
    ("400 X", b'"only a text"', 400, "only a text"),
    ("400 X", b'{"errors":[{"message":"one","field":"n"},{"message":"two"}]}', 400, "two"),
    ("400 X", b'{"error":["one","two"]}', 400, "two"),
    ("500 X", b'{"error":"{\\"message\\":\\"nested text\\",\\"code\\":\\"deep\\"}"}', 500, "nested text"),
    ("429 X", b'{"code":8,"message":"quota of grpc","details":[{"@type":"x","retryDelay":"3s"}]}', 429, "retryDelay"),
    ("400 X", b'{"error":null,"message":"beside null"}', 400, "beside null"),
    ("400 X", b'{"error":{},"message":"beside nothing"}', 400, "beside nothing"),
    ("400 X", b'{"error":true,"message":"beside true"}', 400, "beside true"),
    ("400 X", b'{"statusCode":400,"message":["n must be a number"],"error":"Bad Request"}', 400, "n must be a number"),
    ("401 X", b'{"error":"invalid_token","error_description":"it expired"}', 502, "invalid_token: it expired"),
    ("400 X", b'{"status":"failed","inner":{"why":"%s the end"}}' % (b"x" * 400), 400, "the end"),
    ("400 X", b'{"error":42}', 400, "42"),
    ("400 X", b'{"error_message":"another name","error_code":7}', 400, "another name"),
    ("400 X", b'{"success":false,"reason":"a reason"}', 400, "a reason"),
    ("400 X", b'\xef\xbb\xbf{"error":{"message":"behind a mark","limit":NaN}}', 400, "behind a mark"),
    ("400 X", b'{"error":{"message":"first"},"error":{"message":"last wins"}}', 400, "last wins"),
    ("400 X", '{"error":{"message":"Gr\u00f6\u00dfe"}}'.encode("latin-1"), 400, "Gr\u00f6\u00dfe"),
    ("503 X", b'{"error":{"message":"line one"}}\n{"error":{"message":"line two"}}\n', 503, "line one"),
    ("503 X", b"<html><title>503</title><body>nginx is <b>down</b></body></html>", 503, "nginx is down"),
    ("502 X", b"", 502, "502"),
    ("400 X", b'{"error":{"message":{"text":"an object"}}}', 400, "an object"),
    ("400 X", b'{"error":{"innererror":{"code":"ResponsibleAI","x":1},"code":"content_filter"}}', 400, "ResponsibleAI"),
    ("200 OK", b'{"error":{"message":"in a 200","code":"429"}}', 429, "in a 200"),
    ("200 OK", b'{"error":"a text in a 200"}', 502, "a text in a 200"),
    ("200 OK", b'{"success":false,"errors":[{"code":7009,"message":"cloudflare"}]}', 502, "cloudflare"),
    ("200 OK", b'{"code":500,"message":"envelope","data":null}', 500, "envelope"),
    ("200 OK", b'{"detail":"Not authenticated here"}', 502, "Not authenticated here"),
])  # fmt: skip
async def test_what_an_upstream_says_reaches_the_client(
    tmp_path: Path, status: str, body: bytes, expected: int, said: str
) -> None:
    error = await refused(tmp_path, always(answer(body, status)))
    assert error.status_code == expected
    assert said in f"{error.message} {error.body}"
    assert isinstance(error.body, dict), "the client found no error object"
    assert {"message", "type", "param", "code"} <= error.body.keys()
    assert isinstance(error.body["message"], str)


def streaming(*events: bytes) -> Behaviour:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        for event in events:
            await connection.chunk(event)
        connection.writer.close()

    return behave


@pytest.mark.parametrize(("ending", "said", "code"), [
    (b"", "broke off", "upstream_invalid"),
    (b'event: error\ndata: {"type":"error","sequence_number":2,"code":"server_error","message":"gone","param":null}\n\n',
     "gone", "server_error"),
    (b'data: {"error":{"message":"overloaded","code":"busy"}}\n\n', "overloaded", "busy"),
    (b'event: error\ndata: {"message":"by name only"}\n\n', "by name only", "upstream_error"),
])  # fmt: skip
async def test_the_client_raises_when_responses_end_with_an_error(
    tmp_path: Path, ending: bytes, said: str, code: str
) -> None:
    numbers: list[int] = []
    async with clients(tmp_path, streaming(BEGUN, ending)) as client:
        with pytest.raises(openai.APIError) as raised:
            async for event in await client.responses.create(model="m", input="Hi", stream=True):
                numbers.append(event.sequence_number)
    assert said in raised.value.message
    assert numbers[:2] == [0, 1]


@pytest.mark.parametrize(("ending", "number"), [
    (b"", 2),
    (b'event: error\ndata: {"type":"error","sequence_number":2,"code":"server_error","message":"gone","param":null}\n\n', 3),
])  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/responses"), ("GET", "/v1/responses/r1?stream=true")])
async def test_the_last_event_of_broken_responses_is_a_numbered_failure(
    tmp_path: Path, ending: bytes, number: int, method: str, path: str
) -> None:
    """Codex listens to that event alone."""
    async with gateway_before(streaming(BEGUN, ending), tmp_path) as (_, gateway):
        body = b'{"model":"m","input":"x","stream":true}' if method == "POST" else b""
        reply = await gateway.request(method, path, [("Authorization", f"Bearer {KEY}")], body)
    assert not reply.whole
    last = reply.body.rstrip().split(b"\n\n")[-1]
    assert last.startswith(b"event: response.failed\n")
    assert b'"sequence_number":%d' % number in last
    assert b'"id":"r1"' in last


@pytest.mark.parametrize(("event", "said"), [
    (b'data: {"error":"only a text"}\n\n', "only a text"),
    (b'data: {"error":{"code":500,"detail":"no message"}}\n\n', "no message"),
    (b'data: {"object":"error","message":"of vLLM","code":40303}\n\n', "of vLLM"),
    (b'event: error\ndata: {"message":"by name"}\n\n', "by name"),
    (b"event: error\ndata: plain words\n\n", "plain words"),
])  # fmt: skip
async def test_an_error_within_a_chat_stream_is_raised_with_its_words(tmp_path: Path, event: bytes, said: str) -> None:
    async with clients(tmp_path, streaming(CHUNK, event)) as client:
        with pytest.raises(openai.APIError) as raised:
            async for _ in await client.chat.completions.create(model="m", messages=[], stream=True):
                pass
    assert said in raised.value.message
