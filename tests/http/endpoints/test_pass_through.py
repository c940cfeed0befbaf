"""Requests below ``/v1`` that have no route of their own."""

from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.tokens.changes import TokenSpec
from tests.support.gateway import BEARER, CHAT, KEY, StartGateway
from tests.support.reply import check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import StartUpstream
from tests.support.wire import request, talk

INVALID = "invalid_request_error"
CLOSED = [
    ("GET", "/v1/files"), ("HEAD", "/v1/files"), ("PUT", "/v1/files/file-1"), ("DELETE", "/v1/responses/resp_1"),
    ("GET", "/v1/responses/resp_1/input_items"), ("POST", "/v1/uploads/u/cancel"), ("POST", "/v1/fine_tuning/jobs/j/cancel"),
    ("GET", "/v1/organization/costs"), ("GET", "/v1/model/info"), ("GET", "/v1/Files"), ("GET", "/v1/engines"),
    ("PATCH", "/v1/rerank"), ("POST", "/v1/messages/batches"), ("GET", "/v1/chat/completions/c1"),
]  # fmt: skip


@pytest.mark.parametrize("path", [
    "/v1/realtime", "/v1/responses", "/v1/chat/completions", "/v1/realtime?intent=transcription&model=%2F",
    "/openai/realtime?api-version=2024-10-01-preview&deployment=m", "/openai/v1/realtime?model=m", "/realtime?model=m",
    "/openai/deployments/m/realtime", "/engines/m/chat/completions", "/v1//realtime",
])  # fmt: skip
@pytest.mark.parametrize("protocols", ["WebSocket", "h2c, websocket"])
async def test_a_websocket_is_refused_with_426(start_gateway: StartGateway, path: str, protocols: str) -> None:
    """Codex turns to plain HTTP at once; after any other status it tries again for seconds."""
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    headers = [BEARER, ("Connection", "Upgrade"), ("Upgrade", protocols)]
    reply = await gateway.request("GET", path, headers)
    check_error(reply, 426, INVALID, "unsupported_upgrade")
    assert (reply.header("Upgrade"), reply.header("x-should-retry")) == ("websocket", "false")


async def test_other_upgrades_are_ignored(start_gateway: StartGateway) -> None:
    """Java's client offers HTTP/2 in this way, with any request."""
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    headers = [BEARER, ("Content-Type", "application/json"), ("Connection", "Upgrade"), ("Upgrade", "h2c")]
    assert (await gateway.request("POST", "/v1/chat/completions", headers, CHAT)).status == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_body_is_passed_on(start_gateway: StartGateway, start_upstream: StartUpstream, kind: str) -> None:
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.request("POST", "/v1/rerank", [BEARER, ("Content-Type", kind)], CHAT)
    assert reply.status == 200
    (received,) = upstream.requests
    assert (received.target, received.body, received.header("Content-Type")) == ("/v1/rerank", CHAT, kind)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("application/json; charset=utf-7", "application/json"),
        ("Application/JSON;charset=utf-16", "application/json"),
        ("application/vnd.api+json; v=1", "application/json"),
        ("text/json", "application/json"),
        ("application/jsonl", "application/jsonl"),
        ("multipart/form-data; boundary=b", "multipart/form-data; boundary=b"),
    ],
)
async def test_the_upstream_is_told_what_the_body_was_read_as(
    start_gateway: StartGateway, start_upstream: StartUpstream, kind: str, sent: str
) -> None:
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    headers = [BEARER, ("CONTENT-type", kind)]
    assert (await talk(gateway.port, request("POST", "/v1/rerank?model=o3", headers, CHAT))).status == 200
    (received,) = upstream.requests
    assert [value for name, value in received.headers if name.lower() == "content-type"] == [sent]
    assert received.target == "/v1/rerank"


@pytest.mark.parametrize("path", ["/v1/engines/org%2Fm", "/v1/engines/org%2fm", "/v1/engines/x%2F..%2F..%2Fadmin%2Fkeys",
                                  "/v1/models/%2f", "/v1/models/%2e%2e", "/v1/engines/x%252F..%252Fadmin"])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_no_escaped_slash_reaches_the_upstream(
    start_gateway: StartGateway, start_upstream: StartUpstream, method: str, path: str
) -> None:
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    body = CHAT if method == "POST" else b""
    check_error(
        await gateway.request(method, path, [BEARER, ("Content-Type", "application/json")], body),
        404,
        INVALID,
        "unknown_url",
    )
    assert upstream.requests == []


async def test_what_is_not_inference_is_closed_until_it_is_named(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    made = TokenEditor(tmp_path / "api_tokens.json", SteadyClock()).create(BY, TokenSpec(name="member"))
    key = ("api-key", made.secret)
    upstream = await start_upstream(b'{"object":"list","data":[]}')
    values = {"FREEGPT_API_KEY": KEY, "GATEWAY_UPSTREAM_URL": upstream.url}
    gateway = await start_gateway(**values, GATEWAY_PASS_THROUGH="none")
    for method, path in CLOSED:
        reply = await gateway.request(method, path, [key])
        assert reply.status == 403
        if method != "HEAD" and not path.startswith("/v1/messages"):
            check_error(reply, 403, "permission_error", "insufficient_permissions")
    assert not upstream.requests
    assert (await gateway.request("GET", "/v1/organization/costs", [BEARER])).status == 200
    opened = await start_gateway(**values, GATEWAY_PASS_THROUGH="files")
    assert (await opened.request("GET", "/v1/files", [key])).status == 200
    assert (await opened.request("GET", "/v1/batches", [key])).status == 403


async def test_families_whose_objects_have_owners_are_open_unless_they_are_closed(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    made = TokenEditor(tmp_path / "api_tokens.json", SteadyClock()).create(BY, TokenSpec(name="member"))
    upstream = await start_upstream(b'{"object":"list","data":[{"id":"file-of-somebody-else"}]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    for family in ("files", "batches", "assistants", "vector_stores", "conversations"):
        reply = await gateway.request("GET", f"/v1/{family}", [("api-key", made.secret)])
        assert (reply.status, reply.json()["data"]) == (200, [])
        other = await gateway.request("GET", f"/v1/{family}/id-of-somebody-else", [("api-key", made.secret)])
        assert other.status == 404
    for family in ("fine_tuning/jobs", "evals", "realtime/sessions", "videos"):
        reply = await gateway.request("POST", f"/v1/{family}", [("api-key", made.secret)], CHAT)
        check_error(reply, 403, "permission_error", "insufficient_permissions")


async def test_an_upload_keeps_its_length(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """Many servers refuse a body without one."""
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    kind = ("Content-Type", "application/octet-stream")
    assert (await gateway.request("POST", "/v1/files", [BEARER, kind], b"a" * 5000)).status == 200
    (received,) = upstream.requests
    assert (received.header("Content-Length"), received.header("Transfer-Encoding")) == ("5000", None)
    assert received.body == b"a" * 5000


async def test_a_form_may_have_more_than_a_file(start_gateway: StartGateway, start_upstream: StartUpstream) -> None:
    """OpenAI's clients upload large files in parts that are as large as the default limit."""
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_MAX_BODY_MB="0.25")
    form = ("Content-Type", "multipart/form-data; boundary=b")
    whole, path = b"a" * (256 * 1024), "/v1/uploads/upload_1/parts"
    assert (await gateway.request("POST", path, [BEARER, form], whole + b"--b--")).status == 200
    reply = await gateway.request("POST", path, [BEARER, form], whole + b"a" * (1024 * 1024 + 1))
    check_error(reply, 413, INVALID, "request_too_large")
    plain = ("Content-Type", "text/plain")
    reply = await gateway.request("POST", path, [BEARER, plain], whole + b"a")
    check_error(reply, 413, INVALID, "request_too_large")


@pytest.mark.parametrize("settings", [{}, {"FREEGPT_API_KEY": KEY}])
async def test_an_absolute_target_is_served(start_gateway: StartGateway, settings: dict[str, str]) -> None:
    gateway = await start_gateway(**settings)
    host = f"localhost:{gateway.port}"
    sent = f"GET http://{host}/v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    assert (await talk(gateway.port, sent.encode())).status == 200
    sent = f"GET http://{host}/v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n"
    assert (await talk(gateway.port, sent.encode())).status == (401 if settings else 200)
    sent = f"GET http://other.example/v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    assert (await talk(gateway.port, sent.encode())).status != 200
