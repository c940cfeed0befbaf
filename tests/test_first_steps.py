"""The main job, end to end: a client talks through the gateway to an upstream."""

from pathlib import Path

import aiohttp

from tests.support.gateway import KEY, running_gateway
from tests.support.upstream import always, answer, running_upstream

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hello there"}]}


async def test_echo_answers_in_open_mode(tmp_path: Path) -> None:
    async with (
        running_gateway(tmp_path) as gateway,
        aiohttp.ClientSession() as client,
        client.post(f"{gateway.url}/v1/chat/completions", json=CHAT) as response,
    ):
        assert response.status == 200
        assert (await response.json())["choices"][0]["message"]["content"] == "Hello there"


async def test_the_upstream_gets_its_own_key_and_the_clients_bytes(tmp_path: Path) -> None:
    body = b'{"model":"m", "messages":[ {"role":"user","content":"Hi"}]}'
    async with (
        running_upstream(always(answer(b'{"id":"1","choices":[]}'))) as upstream,
        running_gateway(
            tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=upstream.url, GATEWAY_UPSTREAM_API_KEY="sk-upstream"
        ) as gateway,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as client,
        client.post(f"{gateway.url}/v1/chat/completions", data=body) as response,
    ):
        assert response.status == 200
        assert await response.read() == b'{"id":"1","choices":[]}'
    assert upstream.requests[0].body == body
    assert upstream.requests[0].header("Authorization") == "Bearer sk-upstream"
    assert KEY.encode() not in upstream.requests[0].raw_head
