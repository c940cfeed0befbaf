"""A token with a list of models uses those, by whatever route."""

from pathlib import Path

import pytest

from gateway.tokens.changes import TokenSpec
from tests.support.gateway import KEY, StartGateway
from tests.support.tokens import BY, Clock, TokenEditor
from tests.support.upstream import StartUpstream

GOOD = b'{"id":"1","object":"x","data":[],"model":"gpt-4o"}'


def limited(folder: Path) -> str:
    service = TokenEditor(folder / "api_tokens.json", Clock())
    return service.create(BY, TokenSpec(name="limited", models=("gpt-4o*",))).secret


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b'{"model":"gpt-4o-mini","messages":[]}', 200),
        ("/v1/chat/completions", b'{"model":"o3","messages":[]}', 404),
        ("/v1/chat/completions", b'{"model":"gpt-4o","MODEL":"o3","messages":[]}', 400),
        ("/v1/chat/completions", b'{"model":"gpt-4o","fallbacks":["o3"],"messages":[]}', 403),
        ("/v1/chat/completions", b'{"model":"gpt-4o","models":["o3"],"messages":[]}', 403),
        ("/v1/rerank", b'{"model":"gpt-4o"}', 200),
        ("/v1/rerank", b'{"model":"o3"}', 404),
        ("/v1/moderations", b'{"input":"x"}', 200),
        ("/v1/moderations", b'{"input":"x","model":null}', 200),
        ("/v1/moderations", b'{"input":"x","model":"o3"}', 404),
        ("/v1/moderations", b'{"input":"x","Model":"o3"}', 400),
        ("/v1/moderations", b'{"input":"x","models":["o3"]}', 403),
        ("/v1/rerank", b'{"query":"x"}', 400),
        ("/v1/deployments/o3/chat/completions", b'{"model":"gpt-4o"}', 403),
        ("/v1/Deployments/o3/chat/completions", b'{"model":"gpt-4o"}', 403),
        ("/v1/chat/completions", b'{"model":"gpt-4o,o3","messages":[]}', 400),
        ("/v1/chat/completions?model=o3", b'{"model":"gpt-4o","messages":[]}', 200),
        ("/v1/chat/completions", b'{"model":"gpt-4o","messages":[],"default_fallbacks":["o3"]}', 403),
        ("/v1/responses", b'{"model":"gpt-4o","input":"x","tools":[{"type":"image_generation","model":"o3"}]}', 403),
        ("/v1/messages", b'{"model":"gpt-4o","messages":[]}', 200),
        ("/v1/messages/batches", b'{"model":"gpt-4o","requests":[{"params":{"model":"o3"}}]}', 403),
        ("/v1/realtime/client_secrets", b'{"model":"gpt-4o","session":{"model":"o3"}}', 403),
        ("/v1/engines/o3/chat/completions", b'{"messages":[]}', 404),
        ("/openai/deployments/o3/chat/completions", b'{"messages":[]}', 404),
    ],
)
async def test_only_its_models(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream, path: str, body: bytes, status: int
) -> None:
    headers = [("Authorization", f"Bearer {limited(tmp_path)}"), ("Content-Type", "application/json")]
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.request("POST", path, headers, body)
    assert (reply.status, len(upstream.requests)) == (status, 1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data; boundary=x", 400),
        ("multipart/mixed; boundary=x", 403),
        ("application/x-www-form-urlencoded", 403),
    ],
)
async def test_no_body_that_cannot_be_checked(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream, kind: str, status: int
) -> None:
    headers = [("Authorization", f"Bearer {limited(tmp_path)}"), ("Content-Type", kind)]
    upstream = await start_upstream(GOOD)
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.request("POST", "/v1/audio/transcriptions", headers, b"model=o3")
    assert (reply.status, upstream.requests) == (status, [])


async def test_what_has_no_body_passes(
    tmp_path: Path, start_gateway: StartGateway, start_upstream: StartUpstream
) -> None:
    headers = [
        ("Authorization", f"Bearer {limited(tmp_path)}"),
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
    ]
    upstream = await start_upstream(b'{"object":"list","data":[]}')
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_PASS_THROUGH="files")
    assert (await gateway.request("GET", "/v1/files", headers)).status == 200
    assert len(upstream.requests) == 1
