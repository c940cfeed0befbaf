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
    error = reply.json()["error"]
    check_error(reply, 422, error["type"], error["code"])
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
        behave = always(answer(json.dumps(whole).encode(), "400 No"))
    elif shape == "escaped":
        behave = always(answer(json.dumps(whole).replace("/", "\\/").encode(), "400 No"))  # as PHP writes it
    elif shape == "text":
        behave = always(answer(message.encode(), "400 No", "text/plain"))
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
    for code, status in ((429, 429), ("503", 503), (200, 502), ("x", 502), (True, 502), (None, 502), (600, 502)):
        body = json.dumps({"error": {"message": "no", "code": code}}).encode()
        reply, _ = await ask(tmp_path, always(answer(body)), post())
        check_error(reply, status, "upstream_error", code)


@pytest.mark.parametrize(
    ("behave", "body", "message"),
    [
        (always(answer(b"", "302 Found", extra=b"Location: /elsewhere\r\n")), CHAT, "The upstream answered 302"),
        (always(answer(b"[]")), CHAT, "is not a JSON object"),
        (always(answer(b"<html>")), CHAT, "is not a JSON object"),
        (always(answer(b'{"choices":[]}')), STREAM, "answered a request for a stream without one"),
        (streams(), STREAM, "broke off"),
        (streams(b"data: half an event"), STREAM, "broke off within an event"),
    ],
)
async def test_what_is_no_valid_response_is_502(tmp_path: Path, behave: Behaviour, body: bytes, message: str) -> None:
    reply, _ = await ask(tmp_path, behave, post(body=body))
    assert message in check_error(reply, 502, "upstream_error", "upstream_invalid")["message"]


async def test_a_stream_without_an_event_that_may_end_anywhere_is_invalid(tmp_path: Path) -> None:
    reply, _ = await ask(tmp_path, streams(), post("/v1/moderations", STREAM))
    assert "ended before it began" in check_error(reply, 502, "upstream_error", "upstream_invalid")["message"]


async def test_a_json_error_with_200_in_place_of_a_stream_is_that_error(tmp_path: Path) -> None:
    reply, _ = await ask(tmp_path, always(answer(b'{"error":{"message":"busy","code":429}}')), post(body=STREAM))
    assert "busy" in check_error(reply, 429, "upstream_error", 429)["message"]


async def test_an_error_that_comes_first_in_a_stream_gets_its_status(tmp_path: Path) -> None:
    reply, _ = await ask(tmp_path, streams(b'data: {"error":{"message":"busy","code":503}}\n\n'), post(body=STREAM))
    assert "busy" in check_error(reply, 503, "upstream_error", 503)["message"]
