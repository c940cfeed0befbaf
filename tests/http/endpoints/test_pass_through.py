"""Requests below ``/v1`` that have no route of their own."""

import pytest

from tests.support.gateway import BEARER, CHAT, KEY, StartGateway
from tests.support.reply import check_error
from tests.support.upstream import StartUpstream

INVALID = "invalid_request_error"


async def test_a_websocket_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    headers = [BEARER, ("Connection", "Upgrade"), ("Upgrade", "WebSocket")]
    check_error(await gateway.request("GET", "/v1/realtime", headers), 400, INVALID, "unsupported_upgrade")


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_body_is_passed_on(start_gateway: StartGateway, start_upstream: StartUpstream, kind: str) -> None:
    upstream = await start_upstream(b"{}")
    gateway = await start_gateway(FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url)
    reply = await gateway.request("POST", "/v1/rerank", [BEARER, ("Content-Type", kind)], CHAT)
    assert reply.status == 200
    (received,) = upstream.requests
    assert (received.target, received.body) == ("/v1/rerank", CHAT)
