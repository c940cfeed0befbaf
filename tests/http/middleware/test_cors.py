"""Cross-origin access: exact origins, and nothing for the rest."""

from pathlib import Path

import pytest

from tests.support.gateway import BEARER, KEY, STREAM, StartGateway, running_gateway
from tests.support.upstream import Connection, Received
from tests.support.wire import gateway_before, request, talk

ORIGIN = "https://app.example.com"
ALLOWED = {"FREEGPT_API_KEY": KEY, "GATEWAY_CORS_ORIGINS": f"{ORIGIN}, http://localhost:5173"}
ASKS = ("Access-Control-Request-Method", "POST")


async def test_preflight_takes_no_key(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, **ALLOWED) as gateway:
        reply = await gateway.request("OPTIONS", "/v1/chat/completions", [("Origin", ORIGIN), ASKS])
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("Access-Control-Allow-Origin") == ORIGIN
    assert "POST" in (reply.header("Access-Control-Allow-Methods") or "")
    names = [
        "Authorization",
        "Content-Type",
        "X-Stainless-Lang",
        "api-key",
        "anthropic-dangerous-direct-browser-access",
    ]
    names += [
        "X-Stainless-Helper-Method",
        "X-Stainless-Poll-Helper",
        "X-Stainless-Custom-Poll-Interval",
        "Idempotency-Key",
    ]
    for name in names:
        assert name in (reply.header("Access-Control-Allow-Headers") or "")
    assert reply.header("Vary") == "Origin"
    assert reply.header("Access-Control-Allow-Credentials") is None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", ORIGIN + ".evil.example", ORIGIN + ":444", "http://app.example.com"]
)
async def test_other_origins_get_nothing(start_gateway: StartGateway, origin: str) -> None:
    gateway = await start_gateway(**ALLOWED)
    for data in (
        request("OPTIONS", "/v1/chat/completions", [("Origin", origin), ASKS]),
        request("GET", "/v1/models", [("Origin", origin), BEARER]),
    ):
        reply = await talk(gateway.port, data)
        assert reply.header("Access-Control-Allow-Origin") is None
        assert reply.header("Vary") == "Origin"
        assert reply.status == (401 if data.startswith(b"OPTIONS") else 200)


@pytest.mark.parametrize("origin", ["chrome-extension://abcdef", "app://obsidian.md", "tauri://localhost", "null"])
async def test_programs_with_a_browser_inside_may_be_listed(tmp_path: Path, origin: str) -> None:
    settings = {"FREEGPT_API_KEY": KEY, "GATEWAY_CORS_ORIGINS": f"{ORIGIN},{origin}"}
    async with running_gateway(tmp_path, **settings) as gateway:
        reply = await gateway.request("OPTIONS", "/v1/chat/completions", [("Origin", origin), ASKS])
        assert (reply.status, reply.header("Access-Control-Allow-Origin")) == (204, origin)
        reply = await gateway.request("GET", "/v1/models", [("Origin", origin), BEARER])
        assert (reply.status, reply.header("Access-Control-Allow-Origin")) == (200, origin)
        assert "x-ratelimit-reset-budget" in (reply.header("Access-Control-Expose-Headers") or "")


async def test_answers_and_errors_carry_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**ALLOWED)
    for headers, path, status in (
        ([BEARER], "/v1/models", 200),
        ([], "/v1/models", 401),
        ([BEARER], "/nowhere", 404),
        ([], "/healthz", 200),
    ):
        reply = await gateway.request("GET", path, [*headers, ("Origin", ORIGIN)])
        assert reply.status == status
        assert reply.header("Access-Control-Allow-Origin") == ORIGIN
        assert "x-request-id" in (reply.header("Access-Control-Expose-Headers") or "")


async def test_streams_carry_it(tmp_path: Path) -> None:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end_stream()

    async with gateway_before(behave, tmp_path, **ALLOWED) as (_, gateway):
        for path in ("/v1/chat/completions", "/v1/messages"):
            reply = await gateway.post(path, STREAM, [BEARER, ("Origin", ORIGIN)])
            assert (reply.status, reply.whole) == (200, True)
            assert reply.header("Access-Control-Allow-Origin") == ORIGIN


async def test_a_plain_options_request_is_no_preflight(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**ALLOWED)
    assert (await gateway.request("OPTIONS", "/v1/models", [("Origin", ORIGIN)])).status == 401
    assert (await gateway.request("OPTIONS", "/v1/models", [BEARER, ("Origin", ORIGIN)])).status == 405


async def test_without_the_setting_there_is_none(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await gateway.request("OPTIONS", "/v1/models", [("Origin", ORIGIN), ASKS])
    assert reply.status == 401
    reply = await gateway.request("GET", "/v1/models", [("Origin", ORIGIN), BEARER])
    assert reply.status == 200
    assert not [name for name, _ in reply.headers if name.lower().startswith("access-control")]
    assert reply.header("Vary") is None
