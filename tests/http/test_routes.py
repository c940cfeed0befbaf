"""Deny by default: every row of the table, every path beside it, every odd spelling of one."""

from pathlib import Path

import pytest

from tests.http.test_error_shape import INVALID, ROUTES
from tests.support.gateway import BEARER, CHAT, KEY, StartGateway
from tests.support.reply import Reply, check_error
from tests.support.upstream import StartUpstream, always, answer
from tests.support.wire import gateway_before, request, talk

PUBLIC = {"/healthz", "/readyz", "/openapi.json", "/docs", "/api/tokens/validate", "/api/tokens/revoke"}
"""Frozen: whoever adds to it says in the review why nobody needs a key for it."""
LOOPBACK = {"/metrics"}

ODD = [
    "//v1/chat/completions", "/v1//chat/completions", "/v1/../api", "/v1/./models", "/v1/models/../../metrics",
    "/v1/%2e%2e/api", "/v1/%2E/models", "/%2e%2e/v1/models", "/v1%2fmodels", "/v1%2Fchat%2Fcompletions",
    "/v1/chat%2fcompletions", "/v1/files/a%2f..%2fb", "/v1/models/%2e%2e%2f%2e%2e", "/v1/models/a/../b",
    "/v1/models;x", "/v1/models;token=1", "/v1/files\\..\\x", "/v1/files%5cx", "/v1/files%5C..%5Cx", "/v1/%252e%252e/x",
    "/v1/files%252fx", "/v1/chat/completions/", "/v1/models/", "/v1/", "/v1", "/healthz/", "/healthz/x", "/HEALTHZ",
    "/%68ealthz", "/healthz%2f", "/healthz;x", "/healthz%00", "/V1/models", "/v1/%6dodels", "/v1/files%00", "/v1/%",
    "/v1/%zz", "/v1/%c0%ae%c0%ae/x", "/v1/files%0d%0aX:%20y", "/v1/files%7f", "/v1/files%23x", "/v1/files%3ftoken=x",
    "/", "/api", "/admin", "/.env", "/engines", "/engines/m", "/openai/deployments/m/../../x", "*", "v1/models",
    "http://x.localhost/v1/models", "http://a@localhost/healthz", "http://evil.example/v1/models", "localhost:80",
    "http://localhost//v1/models", "http://localhost/v1/../api",
]  # fmt: skip
RAW = [
    b"/v1/caf\xc3\xa9",
    b"/v1/\xff",
    b"/v1/a\x00b",
    b"/v1/a b",
    b"/v1/a\tb",
    b"/v1/models\x0b",
    b"\xef\xbb\xbf/v1/models",
]


@pytest.mark.parametrize(("method", "path", "access"), ROUTES)
async def test_every_route_takes_a_key(start_gateway: StartGateway, method: str, path: str, access: str) -> None:
    assert (access == "public") == (path in PUBLIC)
    assert (access == "admin or loopback") == (path in LOOPBACK)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    # From a proxy that is not trusted, so that being on this machine opens nothing.
    reply = await gateway.request(method, path, [("X-Forwarded-For", "203.0.113.9")], CHAT)
    if path in PUBLIC:
        # The body is none that asks whether a secret is good, or to end it.
        assert reply.status == (400 if path.startswith("/api/tokens/") else 200)
    else:
        if path.startswith("/v1/messages"):
            assert (reply.status, reply.json()["error"]["type"]) == (401, "authentication_error")
        else:
            check_error(reply, 401, INVALID, None)
        assert (reply.header("WWW-Authenticate")) == "Bearer"


async def test_unknown_paths_take_a_key_before_they_are_unknown(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    for path in ("/", "/nowhere", "/api/token", "/docs/x", "/v2/models", "/metrics/x", "/api/tokens/x/y"):
        check_error(await gateway.request("GET", path), 401, INVALID, None)
        check_error(await gateway.request("GET", path, [BEARER]), 404, INVALID, "unknown_url")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/chat/completions", "POST, GET, HEAD, PUT, PATCH, DELETE"),
        ("/v1/models", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("/healthz", "GET, HEAD"),
        ("/engines/m/completions", "POST"),
    ],
)
async def test_wrong_methods(start_gateway: StartGateway, path: str, allowed: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - set(allowed.split(", ")):
        reply = await gateway.request(method, path, [BEARER])
        check_error(reply, 405, INVALID, "method_not_supported")
        assert reply.header("Allow") == allowed
        if path != "/healthz":
            check_error(await gateway.request(method, path), 401, INVALID, None)


@pytest.mark.parametrize(("method", "target"), [
    ("DELETE", "/v1/models/ft:gpt-4o:acme::x"), ("GET", "/v1/chat/completions?limit=2"), ("GET", "/v1/responses"),
    ("DELETE", "/v1/responses"), ("PATCH", "/v1/embeddings"), ("GET", "/v1/engines/a/completions"),
])  # fmt: skip
async def test_what_the_gateway_does_not_serve_goes_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream, method: str, target: str
) -> None:
    upstream = await start_upstream(b'{"object":"list","data":[]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    assert (await gateway.request(method, target, [BEARER])).status == 200
    assert [(one.method, one.target) for one in upstream.requests] == [(method, target)]


async def test_connect_and_head(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await talk(gateway.port, request("CONNECT", "evil.example:443", [BEARER]))
    assert reply.status in (400, 404, 405)
    reply = await gateway.request("HEAD", "/v1/models")
    assert (reply.status, reply.body) == (401, b"")
    assert (await gateway.request("HEAD", "/v1/models", [BEARER])).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_odd_paths_end_here(tmp_path: Path, method: str) -> None:
    paths = [*(path.encode() for path in ODD), *RAW]
    body = CHAT if method == "POST" else None
    async with gateway_before(always(answer(b'{"leaked":true}')), tmp_path) as (upstream, gateway):
        for path in paths:
            for headers in ([], [BEARER]):
                data = request(method, "PATH", headers, body).replace(b"PATH", path, 1)
                refused(await talk(gateway.port, data), path)
        assert not upstream.requests


def refused(reply: Reply, path: bytes) -> None:
    assert reply.status in (400, 401, 404), (path, reply)
    assert set(reply.json()) == {"error"}, (path, reply)


async def test_names_of_models_may_hold_slashes(tmp_path: Path) -> None:
    models = answer(b'{"data":[{"id":"org/m","object":"model","created":1,"owned_by":"x"}]}')
    async with gateway_before(always(models), tmp_path) as (_, gateway):
        for path in ("/v1/models/org%2fm", "/v1/models/org/m"):
            reply = await gateway.request("GET", path, [BEARER])
            assert (reply.status, reply.json()["id"]) == (200, "org/m")
