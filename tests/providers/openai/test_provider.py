"""The provider for real upstreams: names of models in both directions, headers, and connections that die."""

import asyncio
import json
import zlib
from pathlib import Path

import openai
import pytest

from tests.support.gateway import BEARER, CHAT, KEY, STREAM
from tests.support.reply import Reply, check_error
from tests.support.upstream import Behaviour, Connection, Received, always, answer
from tests.support.wire import gateway_before, post, request, talk

ALIASES = {"GATEWAY_MODEL_ALIASES": "m=org/real,second=org/real"}
REAL_CHAT = b'{ "id":"1", "model":"org/real", "note":"org/real", "choices":[{"model":"org/real"}] }'


def streams(*events: bytes) -> Behaviour:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        for event in events:
            await connection.chunk(event)
        await connection.end_stream()

    return behave


async def ask(folder: Path, behave: Behaviour, data: bytes, **values: str) -> tuple[Reply, Received]:
    async with gateway_before(behave, folder, **values) as (upstream, gateway):
        return await talk(gateway.port, data), upstream.requests[-1]


async def test_the_upstream_gets_its_own_name_of_the_model(tmp_path: Path) -> None:
    body = b'{ "temperature": 1.50, "model" : "m", "messages":[ {"role":"user","content":"m \\u00e9"} ] }'
    reply, received = await ask(tmp_path, always(answer(REAL_CHAT)), post(body=body), **ALIASES)
    assert json.loads(received.body) == {**json.loads(body), "model": "org/real"}
    assert b'[ {"role":"user","content":"m \\u00e9"} ]' in received.body
    assert b"1.50" in received.body
    content = reply.json()
    assert content["model"] == "m"
    assert (content["note"], content["choices"][0]["model"]) == ("org/real", "org/real")


async def test_without_an_alias_no_byte_changes(tmp_path: Path) -> None:
    body = b' {"model":"other" ,"x":1.0e2, "y": [ ] } '
    said = b' {"model": "other", "choices": [ ] } '
    reply, received = await ask(tmp_path, always(answer(said)), post(body=body), **ALIASES)
    assert (received.body, reply.body) == (body, said)


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/rerank", "/engines/m/embeddings"])
async def test_aliases_hold_on_every_route(tmp_path: Path, path: str) -> None:
    reply, received = await ask(tmp_path, always(answer(REAL_CHAT)), post(path), **ALIASES)
    assert reply.status == 200
    assert json.loads(received.body)["model"] == "org/real"


@pytest.mark.parametrize("joined", [True, False])
async def test_names_are_replaced_in_streams(tmp_path: Path, joined: bool) -> None:
    events = [b'data: {"model":"org/real","choices":[{"index":0,"delta":{"content":"org/real"}}]}\n\n',
              b": ping\n\n",
              b'data: {"model": "org/real", "choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
              b"data: [DONE]\n\n"]  # fmt: skip
    parts = [b"".join(events)] if joined else events
    reply, _ = await ask(tmp_path, streams(*parts), post(body=STREAM), **ALIASES)
    assert reply.whole
    lines = [line for line in reply.body.split(b"\n") if line.startswith(b"data: {")]
    assert [json.loads(line[6:])["model"] for line in lines] == ["m", "m"]
    assert json.loads(lines[0][6:])["choices"][0]["delta"]["content"] == "org/real"
    assert b": ping\n\n" in reply.body


async def test_names_are_replaced_in_events_of_the_responses_api(tmp_path: Path) -> None:
    kinds = ("response.created", "response.completed")
    events = [
        f'event: {kind}\ndata: {{"type":"{kind}","response":{{"id":"r","model":"org/real","output":[]}}}}\n\n'.encode()
        for kind in kinds
    ]
    reply, _ = await ask(tmp_path, streams(*events), post("/v1/responses", STREAM), **ALIASES)
    blocks = reply.body.decode().split("\n\n")[:-1]
    assert [block.split("\n")[0] for block in blocks] == [f"event: {kind}" for kind in kinds]
    assert [json.loads(block.split("data: ")[1])["response"]["model"] for block in blocks] == ["m", "m"]


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/chat/completions", "/v1/batches", "/v1/fine_tuning/jobs?limit=2"]
)
async def test_names_are_replaced_in_lists_of_stored_objects(tmp_path: Path, path: str) -> None:
    listed = b'{"object":"list","data":[{"id":"1","model":"org/real-2024-07-18"},{"id":"2","model":"other"}]}'
    reply, _ = await ask(tmp_path, always(answer(listed)), request("GET", path, [BEARER]), **ALIASES)
    assert [entry["model"] for entry in reply.json()["data"]] == ["m", "other"]


async def test_aliases_are_in_the_list_of_models(tmp_path: Path) -> None:
    models = b'{"object":"list","data":[{"id":"org/real","object":"model","created":7,"owned_by":"x"}]}'
    async with (
        gateway_before(always(answer(models)), tmp_path, **ALIASES) as (_, gateway),
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client,
    ):
        assert {model.id async for model in client.models.list()} == {"org/real", "m", "second"}
        assert (await client.models.retrieve("m")).created == 7
        assert (await client.models.retrieve("org/real")).id == "org/real"


@pytest.mark.parametrize("said", [b"5", b"{}", b'{"data":5}', b"<html>", b"\xff",
                                  b'{"data":' + b"[" * 50_000])  # fmt: skip
async def test_an_invalid_list_of_models_is_an_error(tmp_path: Path, said: bytes) -> None:
    reply, _ = await ask(tmp_path, always(answer(said)), request("GET", "/v1/models", [BEARER]))
    check_error(reply, 502, "upstream_error", "upstream_invalid")


SENT = [("User-Agent", "OpenAI/Python 2"), ("Accept", "application/json"), ("OpenAI-Beta", "assistants=v2"),
        ("Idempotency-Key", "k1"), ("X-Stainless-Lang", "python"), ("X-Client-Request-Id", "abc"),
        ("anthropic-version", "2023-06-01"), ("traceparent", "00-1-2-03")]  # fmt: skip
WITHHELD = [("X-Forwarded-For", "10.0.0.1"), ("Cookie", "a=b"), ("Origin", "http://localhost"), ("X-Made-Up", "1"),
             ("Accept-Encoding", "gzip, br"), ("TE", "trailers"), ("Proxy-Connection", "keep-alive"), ("Via", "1.1 x"),
             ("OpenAI-Organization", "org-of-a-stranger"), ("X-Amz-Security-Token", "1")]  # fmt: skip


async def test_headers_that_the_upstream_gets(tmp_path: Path) -> None:
    data = post(headers=[BEARER, *SENT, *WITHHELD])
    _, received = await ask(tmp_path, always(answer(REAL_CHAT)), data, GATEWAY_UPSTREAM_API_KEY="sk-up")
    for name, value in SENT:
        assert received.header(name) == value
    for name, value in WITHHELD:
        assert received.header(name) != value
    assert received.header("Authorization") == "Bearer sk-up"
    assert received.header("Accept-Encoding") == "identity"
    assert (received.header("Host") or "").startswith("127.0.0.1:")
    assert received.header("Content-Length") == str(len(CHAT))


async def test_without_an_upstream_key_no_authorization(tmp_path: Path) -> None:
    _, received = await ask(tmp_path, always(answer(REAL_CHAT)), post())
    assert received.header("Authorization") is None


@pytest.mark.parametrize("name", ["User-Agent", "X-Client-Request-Id", "X-Stainless-Lang"])
async def test_a_client_header_that_is_not_utf_8(tmp_path: Path, name: str) -> None:
    reply, _ = await ask(tmp_path, always(answer(REAL_CHAT)), post(headers=[BEARER, (name, "caf\xe9")]))
    assert reply.status == 200


async def test_headers_that_the_client_gets(tmp_path: Path) -> None:
    extra = (
        b"Retry-After: 7\r\nretry-after-ms: 7000\r\nx-should-retry: false\r\nx-request-id: up-1\r\n"
        b"Set-Cookie: a=b\r\nServer: secret/1\r\nX-Internal-Host: gpu-7\r\nopenai-organization: ours\r\n"
    )
    reply, _ = await ask(tmp_path, always(answer(b"{}", "429 Slow", extra=extra)), post())
    assert reply.status == 429
    assert [reply.header(name) for name in ("Retry-After", "retry-after-ms", "x-should-retry")] == [
        "7",
        "7000",
        "false",
    ]
    assert reply.header("x-upstream-request-id") == "up-1"
    assert (reply.header("x-request-id") or "").startswith("req_")
    assert not [name for name, value in reply.headers if "gpu-7" in value or "secret/1" in value or "a=b" in value]
    reply, _ = await ask(tmp_path, always(answer(b'{"choices":[]}', extra=extra)), post())
    assert (reply.status, reply.header("Retry-After")) == (200, "7")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files/x/content"])
@pytest.mark.parametrize("header", [b'Content-Disposition: attachment; filename="caf\xe9"', b"x-request-id: \xff"])
async def test_an_upstream_header_that_is_not_utf_8(tmp_path: Path, path: str, header: bytes) -> None:
    reply, _ = await ask(tmp_path, always(answer(b'{"choices":[]}', extra=header + b"\r\n")), post(path))
    assert (reply.status, reply.whole, reply.body) == (200, True, b'{"choices":[]}')


class ClosesIdle:
    """Answers the first request, and resets the connection when the second one arrives."""

    def __init__(self, answer_before_closing: bytes | None) -> None:
        self.seen = 0
        self.said = answer_before_closing

    async def __call__(self, _received: Received, connection: Connection) -> None:
        self.seen += 1
        if self.seen == 2:
            if self.said:
                await connection.send(self.said)
            connection.reset()
            return
        await connection.send(answer(REAL_CHAT))


async def test_a_kept_connection_that_dies_is_replaced(tmp_path: Path) -> None:
    upstream_acts = ClosesIdle(None)
    async with gateway_before(upstream_acts, tmp_path) as (upstream, gateway):
        for _ in range(3):
            assert (await gateway.post()).status == 200
        assert len(upstream.requests) == 4
        assert upstream.requests[1].body == upstream.requests[2].body == CHAT


async def test_what_was_answered_is_not_sent_again(tmp_path: Path) -> None:
    upstream_acts = ClosesIdle(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
    async with gateway_before(upstream_acts, tmp_path) as (upstream, gateway):
        assert (await gateway.post()).status == 200
        assert (await gateway.post()).status == 502
        assert len(upstream.requests) == 2


async def test_a_new_connection_that_dies_is_not_tried_again(tmp_path: Path) -> None:
    async def dies(_received: Received, connection: Connection) -> None:
        connection.reset()

    async with gateway_before(dies, tmp_path) as (upstream, gateway):
        check_error(await gateway.post(), 502, "upstream_error", "upstream_unreachable")
        assert len(upstream.requests) == 1


async def test_an_upload_is_not_sent_again(tmp_path: Path) -> None:
    upstream_acts = ClosesIdle(None)
    async with gateway_before(upstream_acts, tmp_path) as (upstream, gateway):
        assert (await gateway.post()).status == 200
        data = request("POST", "/v1/files", [BEARER, ("Content-Type", "audio/wav")], b"x")
        assert (await talk(gateway.port, data)).status == 502
        assert len(upstream.requests) == 2


async def test_a_compressed_answer_is_unpacked(tmp_path: Path) -> None:
    """Some upstreams compress whatever was asked for."""
    body = zlib.compress(REAL_CHAT, wbits=31)
    reply, _ = await ask(tmp_path, always(answer(body, extra=b"Content-Encoding: gzip\r\n")), post())
    assert (reply.body, reply.header("Content-Encoding")) == (REAL_CHAT, None)
    reply, _ = await ask(tmp_path, always(answer(body[:30], extra=b"Content-Encoding: gzip\r\n")), post())
    check_error(reply, 502, "upstream_error", "upstream_invalid")


async def test_paths_and_queries_are_sent_unchanged(tmp_path: Path) -> None:
    for target in ("/v1/files?limit=2&after=a%2Fb%20c", "/v1/files?x=%F0%9F%98%80&&=&y", "/v1/vector_stores/v%C3%A9?a[]=1",
                   "/v1/files?a=1+2&b='\"<>", "/v1/files/a%20b/content?q=/../x"):  # fmt: skip
        _, received = await ask(tmp_path, always(answer(b"{}")), request("GET", target, [BEARER]))
        assert received.target == target


async def test_many_requests_at_a_time(tmp_path: Path) -> None:
    """Responses are not mixed up."""

    async def quotes(received: Received, connection: Connection) -> None:
        await connection.send(answer(received.body))

    async with gateway_before(quotes, tmp_path) as (_, gateway):
        bodies = [b'{"model":"m","n":%d}' % number for number in range(100)]
        replies = await asyncio.gather(*(gateway.post(body=body) for body in bodies))
        assert [reply.body for reply in replies] == bodies


async def test_a_cached_file_that_has_not_changed_is_304(tmp_path: Path) -> None:
    data = request("GET", "/v1/files/x/content", [BEARER, ("If-None-Match", '"tag"')])
    reply, received = await ask(tmp_path, always(answer(b"", "304 Not Modified", extra=b'ETag: "tag"\r\n')), data)
    assert received.header("If-None-Match") == '"tag"'
    assert (reply.status, reply.header("ETag")) == (304, '"tag"')


async def test_the_log_names_the_request_that_the_upstream_has_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [post(), post("/v1/rerank"), request("GET", "/v1/files/f1", [BEARER])]
    for data in requests:
        caplog.clear()
        reply, _ = await ask(tmp_path, always(answer(b"{}", "503 X")), data)
        (record,) = [one for one in caplog.records if one.getMessage() == "the upstream failed"]
        assert vars(record)["request_id"] == reply.header("x-request-id")
