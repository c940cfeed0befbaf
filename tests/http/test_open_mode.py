"""Without any key the gateway serves its own machine, and nobody who only looks like it. Once it enforces, it enforces."""

import asyncio
from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.tokens import cache
from gateway.tokens.changes import TokenSpec
from tests.support.gateway import CHAT, Running, StartGateway
from tests.support.reply import Headers, Reply, check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.wire import request, talk

MODELS = request("GET", "/v1/models")


async def ask(gateway: Running, headers: Headers = (), path: str = "/v1/models") -> Reply:
    return await gateway.request("GET", path, headers)


async def mode(gateway: Running) -> str:
    return str((await ask(gateway, path="/healthz")).json()["mode"])


async def test_loopback_is_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert await mode(gateway) == "open"
    assert (await ask(gateway)).status == 200
    assert (await gateway.post(headers=())).status == 200
    assert (await ask(gateway, path="/metrics")).status == 200


@pytest.mark.parametrize(
    "header",
    [("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", ""),
     ("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "127.0.0.1"), ("x-forwarded-host", "localhost"), ("Via", "1.1 proxy"),
     ("X-Forwarded-Proto", "http"), ("CF-Connecting-IP", "127.0.0.1")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/nowhere"])
async def test_behind_a_proxy_nobody_is_local(start_gateway: StartGateway, header: tuple[str, str], path: str) -> None:
    gateway = await start_gateway()
    error = check_error(await ask(gateway, [header], path), 403, "permission_error", "insufficient_permissions")
    for remedy in ("token_manager.py create", "FREEGPT_API_KEY", "GATEWAY_ALLOW_OPEN"):
        assert remedy in error["message"]
    reply = await ask(gateway, [header], "/metrics")
    assert reply.status == 401, "what a monitoring system without a key gets in every mode"


async def test_a_client_of_a_trusted_proxy_is_not_local_whatever_it_claims(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(GATEWAY_TRUSTED_PROXIES="127.0.0.0/8")
    for claimed in ("203.0.113.9", "127.0.0.1, 203.0.113.9", "203.0.113.9, nonsense", "127.0.0.1"):
        assert (await ask(gateway, [("X-Forwarded-For", claimed)])).status == 403


async def test_http_1_0_is_refused_with_the_reason(start_gateway: StartGateway) -> None:
    """nginx passes requests on with HTTP/1.0 and without any header of its own, unless it is told otherwise."""
    gateway = await start_gateway()
    error = check_error(
        await talk(gateway.port, request("GET", "/v1/models", version="1.0")),
        403, "permission_error", "insufficient_permissions",
    )  # fmt: skip
    assert "HTTP/1.0" in error["message"]
    assert "token_manager.py create" in error["message"]
    assert (await talk(gateway.port, request("GET", "/metrics", version="1.0"))).status == 401


NEW = b'{"name":"new"}'


async def create(gateway: Running, headers: Headers = ()) -> Reply:
    return await talk(
        gateway.port, request("POST", "/api/tokens", [("Content-Type", "application/json"), *headers], NEW)
    )


async def test_a_program_on_this_machine_creates_the_first_token(start_gateway: StartGateway) -> None:
    assert (await create(await start_gateway())).status == 201


@pytest.mark.parametrize("setting", ["GATEWAY_TRUSTED_PROXIES", "GATEWAY_ALLOW_OPEN"])
async def test_nobody_else_creates_tokens_without_a_key(start_gateway: StartGateway, setting: str) -> None:
    gateway = await start_gateway(**{setting: {"GATEWAY_ALLOW_OPEN": "on"}.get(setting, "192.0.2.1/32")})
    headers = [("X-Forwarded-For", "203.0.113.9")] if setting == "GATEWAY_ALLOW_OPEN" else []
    assert (await ask(gateway, headers)).status == 200
    error = check_error(await create(gateway, headers), 403, "permission_error", "insufficient_permissions")
    assert "token_manager.py create NAME" in error["message"]


async def test_metrics_need_a_key_where_a_proxy_is_configured(start_gateway: StartGateway) -> None:
    keys = {"FREEGPT_API_KEY": "sk-made-up-key-for-metrics"}
    assert (await ask(await start_gateway(**keys), path="/metrics")).status == 200
    behind = await start_gateway(**keys, GATEWAY_TRUSTED_PROXIES="192.0.2.1/32")
    assert (await ask(behind, path="/metrics")).status == 401
    for header in (("Via", "1.1 p"), ("Sec-Fetch-Site", "cross-site"), ("Host", "gateway.test")):
        gateway = await start_gateway(**keys, GATEWAY_ALLOWED_HOSTS="gateway.test")
        assert (await ask(gateway, [header], "/metrics")).status == 401


async def test_an_allowed_host_is_served(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(GATEWAY_ALLOWED_HOSTS="gateway.test")
    assert (await talk(gateway.port, MODELS.replace(b"Host: localhost", b"Host: gateway.test:8000"))).status == 200
    assert (await create(gateway, [])).status == 201


async def test_an_image_on_a_foreign_page_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await ask(gateway, [("Sec-Fetch-Site", "cross-site")])).status == 403
    assert (await ask(gateway, [("Sec-Fetch-Site", "same-origin")])).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", "", "http://[::1"]
)
async def test_pages_from_elsewhere(start_gateway: StartGateway, origin: str) -> None:
    gateway = await start_gateway()
    check_error(await ask(gateway, [("Origin", origin)]), 403, "permission_error", "insufficient_permissions")
    assert (await ask(gateway, [("Origin", origin)], "/metrics")).status == 401


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173"])
async def test_pages_from_here(start_gateway: StartGateway, origin: str) -> None:
    gateway = await start_gateway()
    assert (await ask(gateway, [("Origin", origin)])).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "",
        "127.0.0.1.evil.example",
        "app.localhost",
        "10.0.0.7:80",
        "evil.com@localhost",
        "[::1]evil.com",
        "example.com%00.localhost",
    ],
)
async def test_names_that_point_here(start_gateway: StartGateway, host: str) -> None:
    """DNS rebinding: the page's own name resolves to 127.0.0.1, so there is no Origin to see."""
    gateway = await start_gateway()
    data = MODELS.replace(b"Host: localhost", b"Host: " + host.encode())
    check_error(await talk(gateway.port, data), 403, "permission_error", "insufficient_permissions")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]:8000", "localhost:8000"])
async def test_names_of_this_machine(start_gateway: StartGateway, host: str) -> None:
    gateway = await start_gateway()
    assert (await talk(gateway.port, MODELS.replace(b"Host: localhost", b"Host: " + host.encode()))).status == 200


async def test_allow_open_serves_everybody(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(GATEWAY_ALLOW_OPEN="on")
    assert (await ask(gateway, [("X-Forwarded-For", "203.0.113.9")])).status == 200
    assert (await talk(gateway.port, MODELS.replace(b"Host: localhost", b"Host: evil.example"))).status == 200
    assert (await ask(gateway, [("X-Forwarded-For", "203.0.113.9")], "/metrics")).status == 200


async def test_a_named_origin_may_come_in_open_mode(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(GATEWAY_CORS_ORIGINS="https://app.example.com")
    reply = await ask(gateway, [("Origin", "https://app.example.com")])
    assert (reply.status, reply.header("Access-Control-Allow-Origin")) == (200, "https://app.example.com")


def service(folder: Path) -> TokenEditor:
    return TokenEditor(folder / "api_tokens.json", SteadyClock())


async def test_the_first_token_closes_it_within_a_second(tmp_path: Path, start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    assert (await ask(gateway)).status == 200
    made = await asyncio.to_thread(service(tmp_path).create, BY, TokenSpec(name="first"))
    async with asyncio.timeout(5):  # the bound is one second; a busy machine may be late itself
        while (await ask(gateway)).status != 401:
            await asyncio.sleep(0.02)
    assert await mode(gateway) == "file"
    assert (await ask(gateway, [("api-key", made.secret)])).status == 200


@pytest.mark.parametrize("asked", [True, False], ids=["a request in between", "no request in between"])
@pytest.mark.parametrize("how", ["delete", "unlink"])
async def test_it_never_opens_again(
    tmp_path: Path, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, asked: bool, how: str
) -> None:
    """Also if nobody asked for anything while the token was there."""
    monkeypatch.setattr(cache, "GONE_SECONDS", 0.0)
    gateway = await start_gateway()
    made = await asyncio.to_thread(service(tmp_path).create, BY, TokenSpec(name="first"))
    await gateway.refresh_tokens()
    if asked:
        assert (await ask(gateway)).status == 401
    if how == "delete":
        await asyncio.to_thread(service(tmp_path).delete, BY, made.record.id)
    else:
        (tmp_path / "api_tokens.json").unlink()
    for _ in range(3):
        await gateway.refresh_tokens()
    assert len(gateway.app.token_cache.tokens) == 0
    check_error(await ask(gateway), 401, "invalid_request_error", None)
    assert await mode(gateway) == "file"


async def test_a_damaged_file_is_not_open(tmp_path: Path, start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    (tmp_path / "api_tokens.json").write_text('{"version": 1, "tokens": [')
    await gateway.refresh_tokens()
    for path in ("/v1/models", "/v1/files", "/nowhere"):
        check_error(await ask(gateway, path=path), 503, "server_error", "store_unavailable")
    ready = await ask(gateway, path="/readyz")
    assert (ready.status, ready.json()["problem"]) == (503, "the token file is damaged")
    assert (await gateway.post(headers=(), body=CHAT)).status == 503


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version":1,"tokens":[]}'])
async def test_files_without_tokens(tmp_path: Path, start_gateway: StartGateway, content: bytes) -> None:
    """What holds no token leaves the gateway open; what is no token file does not."""
    gateway = await start_gateway()
    (tmp_path / "api_tokens.json").write_bytes(content)
    await gateway.refresh_tokens()
    expected = 200 if content.startswith(b"{") else 503
    assert (await ask(gateway)).status == expected


async def test_all_tokens_revoked_is_still_enforcement(tmp_path: Path, start_gateway: StartGateway) -> None:
    made = service(tmp_path).create(BY, TokenSpec(name="only"))
    service(tmp_path).revoke(BY, made.record.id)
    gateway = await start_gateway()
    assert await mode(gateway) == "file"
    check_error(await ask(gateway), 401, "invalid_request_error", None)
    check_error(await ask(gateway, [("api-key", made.secret)]), 401, "invalid_request_error", "invalid_api_key")
