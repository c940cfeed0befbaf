"""What the routes under ``/v1`` do beside passing on: models in paths, limited tokens, lines on a console."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core import sse
from gateway.core.clock import SteadyClock
from gateway.http.context import RequestContext
from gateway.server import aiohttp_server
from gateway.tokens.changes import TokenSpec
from tests.server.test_worker import get_once, until
from tests.support.gateway import (
    BEARER,
    CHAT,
    JSON,
    KEY,
    STREAM,
    StartGateway,
    environment,
    gateway_process,
    token_manager,
)
from tests.support.reply import check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import Connection, Received, StartUpstream, always, answer, running_upstream
from tests.support.wire import gateway_before, post, request, talk

INVALID = "invalid_request_error"
GOOD = b'{"choices":[]}'


@pytest.mark.parametrize("prefix", ["/v1/engines", "/engines", "/openai/deployments"])
async def test_a_model_in_the_path(start_gateway: StartGateway, start_upstream: StartUpstream, prefix: str) -> None:
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    data = post(f"{prefix}/org%2Fm/chat/completions?api-version=2024-02-01", b'{"messages":[]}')
    assert (await talk(gateway.port, data)).status == 200
    (received,) = upstream.requests
    assert received.target == "/v1/chat/completions"
    assert json.loads(received.body) == {"messages": [], "model": "org/m"}
    check_error(await gateway.post(f"{prefix}/m/images"), 404, INVALID, "unknown_url")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("model", ["null", '""', '"another"', '"gpt-4o"', "7"])
@pytest.mark.parametrize("endpoint", ["chat/completions", "embeddings", "images/generations", "audio/speech"])
async def test_the_path_wins_over_the_body(
    start_gateway: StartGateway, start_upstream: StartUpstream, endpoint: str, model: str
) -> None:
    """LangChain's and AutoGen's clients for Azure send a model besides the deployment, or null."""
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(
        FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_MODEL_ALIASES="deployment=real"
    )
    body = b'{"input":"x","messages":[],"model":%s}' % model.encode()
    reply = await gateway.post(f"/openai/deployments/deployment/{endpoint}?api-version=1", body)
    assert reply.status == 200
    (received,) = upstream.requests
    assert (received.target, json.loads(received.body)["model"]) == (f"/v1/{endpoint}", "real")


async def test_what_is_checked_is_the_model_in_the_path(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    key = ("api-key", service.create(BY, TokenSpec(name="limited", models=("m",))).secret)
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    refused = await gateway.post("/openai/deployments/other/chat/completions", CHAT, [key])
    check_error(refused, 404, INVALID, "model_not_found")
    other = CHAT.replace(b'"m"', b'"other"')
    assert (await gateway.post("/openai/deployments/m/chat/completions", other, [key])).status == 200
    assert [json.loads(one.body)["model"] for one in upstream.requests] == ["m"]


@pytest.mark.parametrize("model", ["", '"model":null,'])
async def test_a_stored_prompt_has_the_model(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream, model: str
) -> None:
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    limited = ("api-key", service.create(BY, TokenSpec(name="limited", models=("m",))).secret)
    upstream = await start_upstream(b'{"id":"resp_1","output":[]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    body = b'{%s"prompt":{"id":"pmpt_1"},"input":"x"}' % model.encode()
    assert (await gateway.post("/v1/responses", body)).status == 200
    assert [one.body for one in upstream.requests] == [body]
    for refused, key in ((body, limited), (b'{%s"input":"x"}' % model.encode(), BEARER)):
        check_error(await gateway.post("/v1/responses", refused, [key]), 400, INVALID, "missing_required_parameter")
    assert len(upstream.requests) == 1


async def test_null_is_no_model(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    upstream = await start_upstream(b'{"results":[]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    assert (await gateway.post("/v1/moderations", b'{"model":null,"input":"x"}')).status == 200
    check_error(
        await gateway.post("/v1/chat/completions", b'{"model":null}'), 400, INVALID, "missing_required_parameter"
    )


async def test_limited_tokens_get_nowhere_else(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    """Neither by another spelling of the route, nor by a body in which no model can be seen."""
    service = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    made = service.create(BY, TokenSpec(name="limited", models=("m",)))
    key = ("api-key", made.secret)
    other = CHAT.replace(b'"m"', b'"other"')
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    for path in ("/v1/chat/completions", "/v1/rerank"):
        check_error(await gateway.post(path, other, [key]), 404, INVALID, "model_not_found")
    for path in ("/v1/chat/completions%20", "/v1/Chat/completions"):
        check_error(await gateway.post(path, other, [key]), 403, "permission_error", "insufficient_permissions")
    assert (await gateway.post("/engines/other/completions", b"{}", [key])).status == 404
    no_model = await gateway.post("/v1/rerank", b"{}", [key])
    check_error(no_model, 400, INVALID, "missing_required_parameter")
    for kind in ("text/plain", "multipart/form-data; boundary=b", "application/octet-stream"):
        data = request("POST", "/v1/chat/completionz", [key, ("Content-Type", kind)], other)
        reply = await talk(gateway.port, data)
        check_error(reply, 403, "permission_error", "insufficient_permissions")
    assert not upstream.requests
    assert (await gateway.post(headers=[key])).status == 200


async def test_the_content_type_does_not_matter_where_json_is_meant(
    start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    for kind in (
        None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-7",
        "multipart/form-data; boundary=b", "application/json, text/plain",
    ):  # fmt: skip
        headers = [BEARER] if kind is None else [BEARER, ("content-TYPE", kind)]
        for path in ("/v1/chat/completions", "/v1/embeddings", "/engines/m/completions"):
            assert (await talk(gateway.port, request("POST", path, headers, CHAT))).status == 200
    assert all(json.loads(received.body) == json.loads(CHAT) for received in upstream.requests)
    for received in upstream.requests:
        assert [value for name, value in received.headers if name.lower() == "content-type"] == ["application/json"]


async def test_an_upgrade_that_is_not_meant(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """curl offers HTTP/2 so; the request is to be answered in HTTP/1.1."""
    h2c = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")]
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.post(headers=[BEARER, *h2c])
    assert (reply.status, reply.body) == (200, b'{"choices":[]}')
    assert upstream.requests[0].header("Upgrade") is None


async def test_an_event_without_end_is_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)

    async def endless(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        while not connection.writer.is_closing():
            await connection.chunk(b"data: " + b"x" * 300)

    async with gateway_before(endless, tmp_path) as (_, gateway):
        check_error(await gateway.post(body=STREAM), 502, "upstream_error", "upstream_invalid")


@pytest.mark.parametrize("last", [b"data: {bad\n\n", b"data: 5\n\n", b": x\n\n", b'data: {"choices":[5]}\n\n'])
async def test_an_odd_last_event_is_no_finish(tmp_path: Path, last: bytes) -> None:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(last)
        await connection.end_stream()

    async with gateway_before(behave, tmp_path) as (_, gateway):
        reply = await gateway.post(body=STREAM)
    assert b"[DONE]" not in reply.body
    assert not (reply.status == 200 and reply.whole)


async def test_console_lines(tmp_path: Path) -> None:
    async with running_upstream(always(answer(GOOD))) as upstream:
        values = {"GATEWAY_LOG_FORMAT": "console", "FREEGPT_API_KEY": KEY, "GATEWAY_UPSTREAM_URL": upstream.url}
        log = await asyncio.to_thread(run_for_one_request, tmp_path, values)
    line = next(line for line in log.splitlines() if "/v1/chat/completions 200" in line)
    assert "token='environment'" in line
    assert "model='m'" in line
    assert "req_" in line
    assert "mode     environment" in log
    assert KEY not in log


def run_for_one_request(folder: Path, values: dict[str, str]) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "console.log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "gateway", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, env=environment(folder, **values), stdout=stream, stderr=stream)
    try:
        until(lambda: "address" in log.read_text())
        asyncio.run(talk(port, post()))
        process.terminate()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait(15)
    return log.read_text()


def test_the_slow_parser_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    aiohttp_server.require_c_parser()
    parser = aiohttp_server.aiohttp.http_parser
    monkeypatch.setattr(parser, "HttpRequestParser", parser.HttpRequestParserPy)
    with pytest.raises(aiohttp_server.ParserMissing, match="AIOHTTP_NO_EXTENSIONS"):
        aiohttp_server.require_c_parser()


async def test_a_public_route_has_no_caller(start_gateway: StartGateway) -> None:
    class Request:
        method, raw_path = "GET", "/healthz"

    with pytest.raises(RuntimeError, match="public"):
        _ = RequestContext(Request()).caller  # type: ignore[arg-type]
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await gateway.request("GET", "/healthz", [("Authorization", "Bearer wrong"), JSON])
    assert reply.status == 200


def test_sighup_reads_the_tokens_again(tmp_path: Path) -> None:
    with gateway_process(tmp_path) as gateway:
        assert get_once(gateway, "/v1/models")[0] == 200
        token_manager(tmp_path, "create", "first")
        gateway.popen.send_signal(signal.SIGHUP)
        until(lambda: get_once(gateway, "/v1/models")[0] == 401)
        assert gateway.stop() == 0


async def test_two_tokens_never_share_an_idempotency_key(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    editor = TokenEditor(tmp_path / "api_tokens.json", SteadyClock())
    keys = [("api-key", editor.create(BY, TokenSpec(name=name)).secret) for name in ("ann", "bob")]
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    for key in (*keys, keys[0], BEARER):
        for path in ("/v1/chat/completions", "/v1/rerank"):
            assert (await gateway.post(path, CHAT, [key, ("Idempotency-Key", "k1")])).status == 200
    sent = [received.header("Idempotency-Key") for received in upstream.requests]
    assert sent[0::2] == sent[1::2] == [sent[0], sent[2], sent[0], "k1"]
    assert len({sent[0], sent[2], "k1"}) == 3
