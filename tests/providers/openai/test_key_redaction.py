"""The upstream's key in what it sends with status 200: in whole responses, streams, other bodies and headers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.openai.key_redaction import MIN_KEY_LENGTH, KeyRedactor
from tests.providers.openai.test_provider import ask, streams
from tests.support.gateway import BEARER, STREAM
from tests.support.upstream import Behaviour, Connection, Received, always, answer
from tests.support.wire import post, request

KEY = "sk-upstream/real+key_0123456789"
STARS = "*" * len(KEY)


def escaped(characters: str) -> str:
    """Returns the key with these of its characters as in JSON."""
    return "".join(f"\\u{ord(char):04x}" if char in characters else char for char in KEY)


SPELLINGS = [KEY, escaped("-"), escaped("-/+_"), escaped(KEY), escaped("-K").replace("002d", "002D"), KEY.replace("/", "\\/"),
             escaped("-").replace("\\", "\\\\"), KEY.replace("/", "%2F").replace("+", "%2B")]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/rerank"])
async def test_a_response_that_quotes_the_key(tmp_path: Path, path: str, spelling: str) -> None:
    body = b'{"key":"%s","choices":[]}' % spelling.encode()
    reply, _ = await ask(tmp_path, always(answer(body)), post(path), GATEWAY_UPSTREAM_API_KEY=KEY)
    assert (reply.status, reply.whole, len(reply.body)) == (200, True, len(body))
    assert reply.json() == {"key": "*" * len(spelling), "choices": []}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_an_event_that_quotes_the_key(tmp_path: Path, spelling: str) -> None:
    event = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % spelling.encode()
    behave = streams(event, event, b"data: [DONE]\n\n")
    reply, _ = await ask(tmp_path, behave, post(body=STREAM), GATEWAY_UPSTREAM_API_KEY=KEY)
    assert reply.whole
    assert reply.body.count(b'"%s"' % (b"*" * len(spelling))) == 2


async def test_a_body_that_quotes_the_key_across_chunks(tmp_path: Path) -> None:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.start_stream("text/plain")
        for byte in f"your key is {KEY}, and again {KEY}":
            await connection.chunk(byte.encode())
        await connection.end_stream()

    data = request("GET", "/v1/files/x/content", [BEARER])
    reply, _ = await ask(tmp_path, behave, data, GATEWAY_UPSTREAM_API_KEY=KEY)
    assert reply.whole
    assert reply.body.decode() == f"your key is {STARS}, and again {STARS}"


async def test_headers_that_quote_the_key(tmp_path: Path) -> None:
    extra = f'ETag: "{KEY}"\r\nContent-Disposition: attachment; filename={KEY}\r\nx-request-id: {KEY}\r\n'.encode()
    behave = always(answer(b"x", content_type=f"text/plain; key={KEY}", extra=extra))
    data = request("GET", "/v1/files/x/content", [BEARER])
    reply, _ = await ask(tmp_path, behave, data, GATEWAY_UPSTREAM_API_KEY=KEY)
    assert reply.status == 200
    assert KEY not in str(reply.headers)


async def test_a_list_of_models_that_quotes_the_key(tmp_path: Path) -> None:
    behave = always(answer(json.dumps({"data": [{"id": "m", "object": "model", "owned_by": KEY}]}).encode()))
    data = request("GET", "/v1/models", [BEARER])
    reply, _ = await ask(tmp_path, behave, data, GATEWAY_UPSTREAM_API_KEY=KEY)
    assert reply.json()["data"][0]["owned_by"] == STARS


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "x" * (MIN_KEY_LENGTH - 1)])
async def test_a_placeholder_for_a_key_is_an_ordinary_word(tmp_path: Path, key: str) -> None:
    body = b'{"choices":[],"text":"%s"}' % key.encode()
    behave: Behaviour = always(answer(body))
    reply, _ = await ask(tmp_path, behave, post(), GATEWAY_UPSTREAM_API_KEY=key)
    assert reply.body == body
    reply, _ = await ask(tmp_path, behave, post("/v1/rerank"), GATEWAY_UPSTREAM_API_KEY=key)
    assert reply.body == body


async def redacted(pieces: list[bytes], key: str | None) -> list[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [chunk async for chunk in KeyRedactor(key).redact_chunks(chunks())]


@given(st.lists(st.sampled_from([*SPELLINGS, "s", "sk-", "\\u", "\\", "%", "é", KEY[:-1]]), max_size=6), st.data())
async def test_it_does_not_matter_where_a_body_is_cut(parts: list[str], data: st.DataObject) -> None:
    body = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True) if end > start]
    found = b"".join(await redacted(pieces, KEY))
    assert KEY.encode() not in found
    assert len(found) == len(body)
    assert found.count(b"*") >= sum(len(part) for part in parts if part in SPELLINGS)


async def test_without_a_key_no_chunk_changes() -> None:
    assert await redacted([b"s", b"k-", b"\\"], None) == [b"s", b"k-", b"\\"]


async def test_only_the_beginning_of_a_key_waits_for_the_next_chunk() -> None:
    assert await redacted([b"abc", b"sk-x", b"a sk-up", b"b"], KEY) == [b"abc", b"sk-x", b"a ", b"sk-upb"]
