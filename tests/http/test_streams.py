"""Streams: the same bytes on both sides however TCP cuts them, at once, and never a cut one that looks whole."""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.providers.base import EVENT_STREAM, ProviderRequest, ProviderResponse
from tests.support.gateway import KEY, STREAM, Running, running_gateway
from tests.support.reply import Reply, check_error
from tests.support.upstream import Behaviour, Connection, Received, answer
from tests.support.wire import connected, gateway_before, post, request, talk

FULL = os.environ.get("GATEWAY_TEST_CAMPAIGN") == "full"
TEXTS = ("Hello", " wörld", " 😀", " \\r\\n", ' \\"data: [DONE]\\"', " 你好", " error")


def chunk(text: str, finish: str | None = None) -> bytes:
    reason = f'"{finish}"' if finish else "null"
    delta = f'{{"content":"{text}"}}'
    return (
        '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
        f'{delta},"finish_reason":{reason}}}]}}'
    ).encode()


def recorded(count: int, line_end: bytes = b"\n", seed: int = 0) -> bytes:
    """A stream of that many events, comments and event names among them, up to and with [DONE]."""
    rng = random.Random(seed)
    events = [b"data: " + chunk(rng.choice(TEXTS)) + line_end * 2 for _ in range(count - 1)]
    for at in range(0, count - 1, 7):
        events[at] = rng.choice([b": ping", b"event: message", b"retry: 10"]) + line_end + events[at]
    return b"".join([*events, b"data: " + chunk("", "stop") + line_end * 2, b"data: [DONE]" + line_end * 2])


def segments(data: bytes, rng: random.Random, longest: int) -> list[bytes]:
    cuts = [0]
    while cuts[-1] < len(data):
        cuts.append(cuts[-1] + rng.randint(1, longest))
    return [data[start:end] for start, end in pairwise(cuts)]


def in_segments(parts: list[bytes], chunked: bool) -> Behaviour:
    """Each part is one write of its own; without ``chunked`` the connection's end is the body's."""

    async def behave(_received: Received, connection: Connection) -> None:
        if chunked:
            await connection.start_stream()
        else:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for part in parts:
            await (connection.chunk(part) if chunked else connection.send(part))
            await asyncio.sleep(0)  # to give the other side its turn, so that the cut is seen there
        if chunked:
            await connection.end_stream()
        connection.writer.close()

    return behave


async def streamed(folder: Path, behave: Behaviour, **values: str) -> Reply:
    async with gateway_before(behave, folder, **values) as (_, gateway):
        return await talk(gateway.port, post(body=STREAM), 60)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "to the end"])
@pytest.mark.parametrize("longest", [1, 3, 50, 5000])
async def test_bytes_are_equal_on_both_sides(tmp_path: Path, line_end: bytes, chunked: bool, longest: int) -> None:
    data = recorded(12 if longest == 1 else 60, line_end, longest)
    parts = segments(data, random.Random(longest), longest)
    reply = await streamed(tmp_path, in_segments(parts, chunked))
    assert reply.whole
    # A line feed that comes behind the last event's CR may be missing: the event has ended before it.
    assert reply.body.rstrip(b"\n") == data.rstrip(b"\n")


@pytest.mark.campaign
async def test_ten_thousand_events_in_random_pieces(tmp_path: Path) -> None:
    data = recorded(10_000 if FULL else 500, seed=7)
    for seed in range(3 if FULL else 1):
        reply = await streamed(tmp_path, in_segments(segments(data, random.Random(seed), 400), True))
        assert reply.whole
        assert reply.body == data


async def test_an_event_is_delivered_before_the_next_is_made(tmp_path: Path) -> None:
    may_go_on = asyncio.Event()
    events = recorded(3).split(b"\n\n")

    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        for event in events[:-1]:
            await connection.chunk(event + b"\n\n")
            await may_go_on.wait()
            may_go_on.clear()
        await connection.end_stream()

    async with gateway_before(behave, tmp_path) as (_, gateway), connected(gateway.port) as client:
        await client.send(post(body=STREAM))
        await client.head()
        for event in events[:-1]:
            assert await client.piece(5) == event + b"\n\n"
            may_go_on.set()
        assert await client.piece(5) == b""


async def test_headers(tmp_path: Path) -> None:
    reply = await streamed(tmp_path, in_segments([recorded(2)], True))
    assert reply.status == 200
    assert reply.header("Content-Type") == "text/event-stream"
    assert reply.header("X-Accel-Buffering") == "no"
    assert reply.header("Cache-Control") == "no-cache"
    assert reply.header("openai-version") == "2020-10-01"
    assert (reply.header("openai-processing-ms") or "").isdigit()
    assert (reply.header("x-request-id") or "").startswith("req_")
    assert (reply.header("server-timing") or "").startswith("gateway;dur=")


ERROR_EVENT = b'data: {"error":{"message":"overloaded","type":"server_error","param":null,"code":null}}\n\n'


async def test_an_upstreams_error_event_passes_and_breaks_the_stream(tmp_path: Path) -> None:
    first = b"data: " + chunk("Hi") + b"\n\n"
    first_is_there = asyncio.Event()

    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(first)
        await first_is_there.wait()
        await connection.chunk(ERROR_EVENT + first + b"data: [DONE]\n\n")
        await connection.end_stream()

    async with gateway_before(behave, tmp_path) as (_, gateway), connected(gateway.port) as client:
        await client.send(post(body=STREAM))
        await client.head()
        assert await client.piece() == first
        first_is_there.set()
        assert await client.piece() == ERROR_EVENT
        assert await client.piece() is None


async def test_an_error_in_the_first_event_becomes_a_status(tmp_path: Path) -> None:
    error = b'data: {"error":{"message":"too many","code":429}}\n\n'
    reply = await streamed(tmp_path, in_segments([error], True))
    assert "too many" in check_error(reply, 429, "upstream_error", 429)["message"]


@pytest.mark.parametrize("usage", [b"", b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_forgotten_end_mark_is_added(tmp_path: Path, usage: bytes, chunked: bool) -> None:
    """The usage is not for a client that did not ask for it."""
    data = recorded(3).removesuffix(b"data: [DONE]\n\n")
    reply = await streamed(tmp_path, in_segments([data + usage], chunked))
    assert (reply.whole, reply.body) == (True, data + b"data: [DONE]\n\n")


@pytest.mark.parametrize("behind", [b": bye\n\n", b"\n", b"\r\n\r\n", b"data: more\n\n"])
async def test_what_comes_behind_the_end_mark_spoils_nothing(tmp_path: Path, behind: bytes) -> None:
    """In one write with it, so in one segment most likely: the answer was whole before."""
    data = recorded(3)
    reply = await streamed(tmp_path, in_segments([data + behind], True))
    assert reply.whole
    assert b'"error":{' not in reply.body
    assert reply.body.startswith(data)


async def test_heartbeats_behind_the_finish_spoil_nothing(tmp_path: Path) -> None:
    data = recorded(3).removesuffix(b"data: [DONE]\n\n") + b": ping\n\n" * 3
    reply = await streamed(tmp_path, in_segments([data], True))
    assert (reply.whole, reply.body) == (True, data + b"data: [DONE]\n\n")


async def test_an_end_without_finish_reason_is_none(tmp_path: Path) -> None:
    reply = await streamed(tmp_path, in_segments([b"data: " + chunk("Hi") + b"\n\n"], True))
    assert_cut(reply)


async def test_an_old_client_sees_a_cut_answer_too(tmp_path: Path) -> None:
    """HTTP/1.0 has no chunks: only a reset can say that the body is not whole."""

    async def behave(_received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: 9\r\n\r\nabc")
        await asyncio.sleep(0)
        connection.reset()

    async with gateway_before(behave, tmp_path) as (_, gateway), connected(gateway.port) as client:
        await client.send(request("GET", "/v1/files/x/content", [("api-key", KEY)], version="1.0"))
        if (await client.head()).status == 200:
            with pytest.raises(ConnectionError):
                while await client.reader.read(100):
                    pass


async def test_a_backends_bug_in_mid_stream_is_an_error_event(tmp_path: Path) -> None:
    async with broken_in_mid_stream(tmp_path, RuntimeError("secret inside")) as gateway:
        reply = await talk(gateway.port, post(body=STREAM))
    assert_cut(reply)
    assert b"secret inside" not in reply.body
    assert b"internal_error" in reply.body


@pytest.mark.parametrize("error", [ConnectionResetError("x"), TimeoutError("x")])
async def test_a_backends_network_error_in_mid_stream_is_an_error_event(tmp_path: Path, error: Exception) -> None:
    async with broken_in_mid_stream(tmp_path, error) as gateway:
        assert_cut(await talk(gateway.port, post(body=STREAM)))


@asynccontextmanager
async def broken_in_mid_stream(folder: Path, error: Exception) -> AsyncIterator[Running]:
    class Provider:
        name = "broken"

        async def send(self, request: ProviderRequest) -> ProviderResponse:
            async def body() -> AsyncIterator[bytes]:
                yield b"data: " + chunk("Hi") + b"\n\n"
                raise error

            return ProviderResponse(200, EVENT_STREAM, body())

        async def models(self) -> list[dict[str, Any]]:
            return []

        async def aclose(self) -> None: ...

    async with running_gateway(folder, FREEGPT_API_KEY=KEY, app_options={"provider": Provider()}) as gateway:
        yield gateway


def assert_cut(reply: Reply) -> None:
    """The last event says an error, there is no end mark, and the body has no proper end."""
    assert not reply.whole
    assert b"[DONE]" not in reply.body
    *before, last, nothing = reply.body.split(b"\n\n")
    assert nothing == b""
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    for event in before:
        json.loads(event.removeprefix(b"data: "))


async def test_json_instead_of_a_stream(tmp_path: Path) -> None:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.send(answer(b'{"choices":[]}'))

    check_error(await streamed(tmp_path, behave), 502, "upstream_error", "upstream_invalid")


async def test_official_client_gets_the_whole_text(tmp_path: Path) -> None:
    data = recorded(30)
    async with gateway_before(in_segments(segments(data, random.Random(1), 90), True), tmp_path) as (_, gateway):
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)
        async with client:
            stream = await client.chat.completions.create(model="m", messages=[], stream=True)
            texts = [part.choices[0].delta.content async for part in stream]
    expected = [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]
    assert texts == [event["choices"][0]["delta"]["content"] for event in expected]
