"""The errors of an upstream: wrapped where they have another shape, and without its key."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.providers.base import ProviderConfig
from gateway.providers.openai import provider
from tests.providers.openai.test_provider import ask, streams
from tests.support.gateway import CHAT, STREAM
from tests.support.reply import check_error
from tests.support.upstream import Behaviour, Connection, Received, always, answer
from tests.support.wire import connected, gateway_before, post


def test_the_provider_needs_an_upstream() -> None:
    with pytest.raises(ValueError, match="GATEWAY_UPSTREAM_URL"):
        provider.create(ProviderConfig(None, None, 1, 1, 1))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":{"message":"no such thing"}}', "no such thing"),
        (b'{"error":"plain words"}', "plain words"),
        (b'{"message":"at the top"}', "at the top"),
        (b'{"detail":[{"loc":["body"],"msg":"required"}]}', "required"),
        (b'{"object":"error","message":"of old vLLM","type":"X","param":null,"code":400}', "of old vLLM"),
        (b"<html><title>Oh</title><p>nginx &amp; co</p></html>", "Oh"),
        (b"\xff\xfe plain", "plain"),
        (b"", "nothing more"),
        (b"x" * 3_000_000, "nothing more"),
    ],
)
async def test_errors_of_other_shapes_are_wrapped(tmp_path: Path, body: bytes, said: str) -> None:
    reply, _ = await ask(tmp_path, always(answer(body, "422 Oh")), post())
    error = check_error(reply, 422, "upstream_error", "upstream_error")
    assert said in error["message"]
    assert len(error["message"]) < 500
    assert "<" not in error["message"]


SECRET = "sk-upstream/1234567890"


@pytest.mark.parametrize("shape", ["openai", "text", "event", "escaped"])
async def test_the_upstreams_key_is_cut_out(tmp_path: Path, shape: str) -> None:
    message = f"Incorrect API key provided: {SECRET}."
    whole: dict[str, Any] = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "k"}}
    behave: Behaviour
    if shape == "openai":
        behave = always(answer(json.dumps(whole).encode(), "401 No"))
    elif shape == "escaped":
        behave = always(answer(json.dumps(whole).replace("/", "\\/").encode(), "401 No"))  # as PHP writes it
    elif shape == "text":
        behave = always(answer(message.encode(), "401 No", "text/plain"))
    else:
        behave = streams(b"data: " + json.dumps(whole).encode() + b"\n\n")
    data = post(body=STREAM if shape == "event" else CHAT)
    reply, _ = await ask(tmp_path, behave, data, GATEWAY_UPSTREAM_API_KEY=SECRET)
    assert SECRET.encode() not in reply.body.replace(b"\\/", b"/")
    assert b"Incorrect API key" in reply.body


async def test_the_upstreams_key_is_cut_out_of_a_running_stream(tmp_path: Path) -> None:
    first_is_there = asyncio.Event()

    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(b'data: {"choices":[]}\n\n')
        await first_is_there.wait()
        await connection.chunk(b'data: {"error":{"message":"bad key ' + SECRET.encode() + b'"}}\n\n')

    async with (
        gateway_before(behave, tmp_path, GATEWAY_UPSTREAM_API_KEY=SECRET) as (_, gateway),
        connected(gateway.port) as client,
    ):
        await client.send(post(body=STREAM))
        await client.head()
        await client.piece()
        first_is_there.set()
        assert SECRET.encode() not in (await client.piece() or b"")


async def test_an_error_with_200_keeps_its_code(tmp_path: Path) -> None:
    for code, status in ((429, 429), (503, 503), (200, 502), ("x", 502), (True, 502), (None, 502), (600, 502)):
        body = json.dumps({"error": {"message": "no", "code": code}}).encode()
        reply, _ = await ask(tmp_path, always(answer(body)), post())
        check_error(reply, status, "upstream_error", "upstream_error")
