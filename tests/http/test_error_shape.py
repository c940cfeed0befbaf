"""Every error, on every route, from the socket's first bad byte to a backend's bug: one shape."""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.http.routes import Endpoints, routes
from tests.support.gateway import BEARER, CHAT, KEY, STREAM, Running, StartGateway, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.upstream import Behaviour, Connection, Received, always, answer
from tests.support.wire import connected, gateway_before, never, post, request, talk

INVALID = "invalid_request_error"
PATHS = {
    "{model...}": "m", "{model}": "m", "{endpoint...}": "chat/completions", "{rest...}": "files",
    "{id}": "tok_none", "{email}": "ann@example.com",
}  # fmt: skip


class _Nothing:
    def __getattr__(self, name: str) -> Any:
        return name


def all_routes() -> list[tuple[str, str, str]]:
    """Each row as (method, path, access); the first method that is not HEAD."""
    rows = []
    for route in routes(Endpoints(*[_Nothing()] * len(Endpoints._fields))):  # type: ignore[arg-type]
        path = route.pattern
        for mark, example in PATHS.items():
            path = path.replace(mark, example)
        method = "POST" if "POST" in route.methods else route.methods[0]
        rows.append((method, path, route.access.value))
    return rows


ROUTES = all_routes()
MESSAGES = "/v1/messages"
"""Errors below it have Anthropic's shape; see test_error_formats.py."""
GATED = [(method, path) for method, path, access in ROUTES if access == "inference" and not path.startswith(MESSAGES)]
WITH_BODY = [(method, path) for method, path in GATED if method == "POST"]


class Case(NamedTuple):
    """What is done to a route, and the answer."""

    name: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int
    code: str | None


def header_cases() -> list[Case]:
    wrong = ("X-API-Key", "sk-wrong-key-0123456789")
    return [
        Case("no credential", (), CHAT, 401, None),
        Case("empty credential", (("Authorization", "Bearer "),), CHAT, 401, None),
        Case("basic", (("Authorization", "Basic abcdef"),), CHAT, 401, "invalid_api_key"),
        Case("wrong", (wrong,), CHAT, 401, "invalid_api_key"),
        Case("not ASCII", (("X-API-Key", "sk-\xe9\xff"),), CHAT, 401, "invalid_api_key"),
        Case("too long", (("X-API-Key", "k" * 513),), CHAT, 401, "invalid_api_key"),
        Case("ambiguous", (BEARER, wrong), CHAT, 400, "ambiguous_credentials"),
        Case("twice", (BEARER, BEARER), CHAT, 400, "ambiguous_credentials"),
        Case("wrong with odd id", (wrong, ("X-Client-Request-Id", "\xff\xfe")), CHAT, 401, "invalid_api_key"),
    ]


def body_cases() -> list[Case]:
    gzip = (BEARER, ("Content-Encoding", "gzip"))
    return [
        Case("too large", (BEARER,), b'{"model":"m","x":"' + b"y" * 2**20 + b'"}', 413, "request_too_large"),
        Case("compressed", gzip, CHAT, 415, "unsupported_encoding"),
        Case("not JSON", (BEARER,), b"{oops", 400, "invalid_json"),
        Case("no object", (BEARER,), b"[1]", 400, "invalid_json"),
        Case("not UTF-8", (BEARER,), b'{"model":"\xff"}', 400, "invalid_json"),
        Case("duplicate", (BEARER,), b'{"model":"m","model":"n"}', 400, "duplicate_key"),
        Case("deep", (BEARER,), b'{"model":"m","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        Case("surrogate", (BEARER,), b'{"model":"\\ud800"}', 400, "invalid_json"),
        Case("huge number", (BEARER,), b'{"model":"m","n":1e999}', 400, "invalid_json"),
        Case("expectation", (BEARER, ("Expect", "a-pony")), CHAT, 400, "invalid_header"),
    ]


@pytest.mark.parametrize(("method", "path"), GATED)
@pytest.mark.parametrize("case", header_cases(), ids=lambda case: case.name)
async def test_credentials(start_gateway: StartGateway, method: str, path: str, case: Case) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_LOG_LEVEL="info")
    reply = await gateway.request(method, path, case.headers, case.body)
    error = check_error(reply, case.status, INVALID, case.code)
    if case.status == 401:
        assert reply.header("WWW-Authenticate") == "Bearer"
    if case.code == "invalid_api_key":
        assert error["message"].startswith("Invalid API key provided")


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
@pytest.mark.parametrize("case", body_cases(), ids=lambda case: case.name)
async def test_bodies(start_gateway: StartGateway, method: str, path: str, case: Case) -> None:
    headers = [("Content-Type", "application/json"), *case.headers]
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_MAX_BODY_MB="0.5")
    reply = await gateway.request(method, path, headers, case.body)
    check_error(reply, case.status, INVALID, case.code)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"])
@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":""}'])
async def test_no_model(start_gateway: StartGateway, path: str, body: bytes) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    error = check_error(await gateway.post(path, body), 400, INVALID, "missing_required_parameter")
    assert error["param"] == "model"
    assert error["message"] == "you must provide a model parameter"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (request("BREW", "/v1/models", [BEARER]), 400, "invalid_http"),
        (b"GET\r\n\r\n", 400, "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_http"),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400, "invalid_http"),
        (b"GET /v1/models HTTP/1.1\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n", 431, "header_too_large"),
        (b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431, "header_too_large"),
        (b"POST /v1/files HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400, "invalid_http"),
        (
            b"POST /v1/files HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "invalid_http",
        ),
        (request("DELETE", "/v1/chat/completions", [BEARER]), 405, "method_not_supported"),
        (request("DELETE", "/api/tokens/validate", [BEARER]), 405, "method_not_supported"),
        (request("OPTIONS", "/v1/chat/completions", [BEARER]), 405, "method_not_supported"),
        (request("TRACE", "/v1/files", [BEARER]), 405, "method_not_supported"),
        (request("GET", "/nowhere", [BEARER]), 404, "unknown_url"),
        (request("GET", "/v1/files/caf\xc3\xa9", [BEARER]), 400, "invalid_http"),
        (request("GET", "/v1/files/\xff", [BEARER]), 400, "invalid_http"),
        (request("GET", "/v1/files/%FF", [BEARER]), 404, "unknown_url"),
        (request("GET", "/v1/models/none", [BEARER]), 404, "model_not_found"),
        (request("POST", "/v1/rerank", [BEARER], b""), 404, None),
    ],
)
async def test_requests_that_are_none(start_gateway: StartGateway, data: bytes, status: int, code: str | None) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_LOG_LEVEL="info")
    check_error(await talk(gateway.port, data), status, INVALID, code)


async def resets(_received: Received, connection: Connection) -> None:
    connection.reset()


async def says_half(_received: Received, connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
    connection.writer.close()


async def stops_in_the_body(_received: Received, connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
    await connection.wait_closed()


class Upstreams(NamedTuple):
    name: str
    behave: Behaviour
    status: int
    code: str | int


HTML = b"<html><body><h1>Bad gateway</h1></body></html>"
UPSTREAM_CASES = [
    Upstreams("resets", resets, 502, "upstream_unreachable"),
    Upstreams("stalls", never, 504, "upstream_timeout"),
    Upstreams("half", says_half, 502, "upstream_invalid"),
    Upstreams("stalls in the body", stops_in_the_body, 504, "upstream_timeout"),
    Upstreams("HTML with 200", always(answer(HTML, content_type="text/html")), 502, "upstream_invalid"),
    Upstreams("HTML with 502", always(answer(HTML, "502 Bad Gateway", "text/html")), 502, "upstream_error"),
    Upstreams("empty 500", always(answer(b"", "500 Oh")), 500, "upstream_error"),
    Upstreams("error with 200", always(answer(b'{"error":{"message":"no","code":429}}')), 429, 429),
    Upstreams("text error", always(answer(b'{"error":"no"}')), 502, "upstream_error"),
    Upstreams("no object", always(answer(b"[1]")), 502, "upstream_invalid"),
    Upstreams("deep", always(answer(b'{"a":' + b"[" * 100_000)), 502, "upstream_invalid"),
    Upstreams("redirect", always(answer(b"", "302 F", extra=b"Location: http://x/\r\n")), 502, "upstream_invalid"),
    Upstreams("garbage", always(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), 502, "upstream_invalid"),
    Upstreams("odd header", always(answer(b"[]", "500 X", extra=b"Retry-After: \xff\r\n")), 500, "upstream_error"),
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
                                  "/v1/engines/m/chat/completions"])  # fmt: skip
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("case", UPSTREAM_CASES, ids=lambda case: case.name)
async def test_upstreams(tmp_path: Path, path: str, body: bytes, case: Upstreams) -> None:
    short = {"GATEWAY_FIRST_BYTE_TIMEOUT": "0.1", "GATEWAY_CHUNK_TIMEOUT": "0.1"} if case.status == 504 else {}
    async with gateway_before(case.behave, tmp_path, **short) as (_, gateway):
        check_error(await gateway.post(path, body), case.status, "upstream_error", case.code)


@pytest.mark.parametrize(("method", "path"), GATED)
async def test_upstream_is_not_there(start_gateway: StartGateway, method: str, path: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL="http://127.0.0.1:1/v1")
    data = request(method, path, [BEARER], CHAT if method == "POST" else None)
    check_error(await talk(gateway.port, data), 502, "upstream_error", "upstream_unreachable")


async def test_an_upstreams_own_error_passes_as_it_is(tmp_path: Path) -> None:
    body = b'{"error": {"message": "slow down", "type": "requests", "param": null, "code": "rate_limit_exceeded"} }'
    async with gateway_before(always(answer(body, "429 Too Many")), tmp_path) as (_, gateway):
        reply = await gateway.post()
        check_error(reply, 429, "requests", "rate_limit_exceeded")
        assert reply.body == body


@pytest.mark.parametrize("path", ["/v1/files", "/v1/chat/completions", "/v1/models"])
async def test_an_upstream_that_switches_protocols(tmp_path: Path, path: str) -> None:
    async def switches(_received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n??")
        await connection.wait_closed()

    async with gateway_before(switches, tmp_path, GATEWAY_CHUNK_TIMEOUT="0.2") as (_, gateway):
        method = "POST" if "chat" in path else "GET"
        reply = await gateway.request(method, path, [BEARER], CHAT if method == "POST" else None)
        assert reply.status in (502, 504)
        check_error(reply, reply.status, "upstream_error", reply.json()["error"]["code"])


@pytest.mark.parametrize(("method", "path"), GATED)
async def test_draining(start_gateway: StartGateway, method: str, path: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    await gateway.app.drain(0)
    reply = await gateway.request(method, path, [BEARER], CHAT if method == "POST" else None)
    check_error(reply, 503, "server_error", "draining")
    assert int(reply.header("Retry-After") or "") > 0


@pytest.mark.parametrize(("method", "path"), GATED)
async def test_damaged_store(tmp_path: Path, start_gateway: StartGateway, method: str, path: str) -> None:
    """Nobody can tell whether the file forbids this caller: 503, not 401 and not open."""
    gateway = await start_gateway()
    (tmp_path / "api_tokens.json").write_text("{ damaged")
    gateway.app.reload_tokens()
    reply = await wait_for_status(gateway, request(method, path, [], CHAT if method == "POST" else None), 503)
    check_error(reply, 503, "server_error", "store_unavailable")
    assert int(reply.header("Retry-After") or "") > 0


async def wait_for_status(gateway: Running, data: bytes, status: int) -> Reply:
    async with asyncio.timeout(5):
        while (reply := await talk(gateway.port, data)).status != status:
            pass
    return reply


async def test_garbage_behind_a_good_request(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, FREEGPT_API_KEY=KEY) as gateway, connected(gateway.port) as client:
        await client.send(post())
        assert (await client.reply()).status == 200
        await client.send(b"\x00garbage\r\n\r\n")
        check_error(await client.reply(), 400, INVALID, "invalid_http")
        assert await client.until_closed() == b""
