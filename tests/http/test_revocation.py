"""A token that dies takes its running streams with it, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.core.clock import SteadyClock
from gateway.tokens.changes import TokenSpec
from tests.http.test_client_gone import EVENT, SAY, Slow, upstream_is_left
from tests.support.gateway import CHAT, STREAM, Running, running_gateway
from tests.support.reply import check_error
from tests.support.tokens import BY, TokenEditor
from tests.support.upstream import Connection, Received, Upstream, running_upstream
from tests.support.wire import Client, connected, post, request, talk

FIRST_PIECE = EVENT


class Tokens:
    """Two tokens in the gateway's file."""

    def __init__(self, folder: Path) -> None:
        self.service = TokenEditor(folder / "api_tokens.json", SteadyClock())
        self.dying = self.service.create(BY, TokenSpec(name="dying"))
        self.living = self.service.create(BY, TokenSpec(name="living"))

    def end(self, how: str) -> None:
        if how == "revoke":
            self.service.revoke(BY, self.dying.record.id)
        else:
            self.service.delete(BY, self.dying.record.id)


async def begins(_received: Received, connection: Connection) -> None:
    await connection.start_stream()
    await connection.chunk(FIRST_PIECE)
    await connection.wait_closed()


@asynccontextmanager
async def scene(folder: Path, behave: object = begins) -> AsyncIterator[tuple[Tokens, Upstream, Running]]:
    tokens = Tokens(folder)
    async with (
        running_upstream(behave) as upstream,  # type: ignore[arg-type]
        running_gateway(folder, GATEWAY_UPSTREAM_URL=upstream.url) as gateway,
    ):
        yield tokens, upstream, gateway


def with_secret(secret: str, body: bytes = STREAM, path: str = "/v1/chat/completions") -> bytes:
    return post(path, body, [("api-key", secret)])


async def start(client: Client, secret: str, path: str = "/v1/chat/completions") -> None:
    await client.send(with_secret(secret, path=path))
    assert (await client.head()).status == 200
    assert await client.piece() == FIRST_PIECE


@pytest.mark.parametrize("how", ["revoke", "delete"])
@pytest.mark.parametrize(
    ("path", "beginning"),
    [
        ("/v1/chat/completions", b'data: {"error":{"message":"Invalid API key provided'),
        ("/v1/responses", b'event: response.failed\ndata: {"type":"response.failed","sequence_number":0,"response":{'),
        (
            "/v1/messages",
            b'event: error\ndata: {"type":"error","error":{"type":"authentication_error","message":"Invalid API',
        ),
    ],
)
async def test_streams_of_a_dead_token_end(tmp_path: Path, how: str, path: str, beginning: bytes) -> None:
    """Each client is told in its own dialect."""
    async with (
        scene(tmp_path) as (tokens, upstream, gateway),
        connected(gateway.port) as dying,
        connected(gateway.port) as living,
    ):
        await start(dying, tokens.dying.secret, path)
        await start(living, tokens.living.secret, path)
        await asyncio.to_thread(tokens.end, how)
        last = await dying.piece(2)
        assert last is not None
        assert last.startswith(beginning)
        assert b"Invalid API key provided: it has been revoked" in last
        assert await dying.piece(2) is None
        async with asyncio.timeout(2):
            await upstream.connections[0].closed.wait()
        await upstream.connections[1].chunk(b"data: [DONE]\n\n")
        assert await living.piece() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("how", ["revoke", "delete"])
async def test_the_next_request_is_refused(tmp_path: Path, how: str) -> None:
    async with scene(tmp_path) as (tokens, _, gateway):
        data = request("GET", "/v1/models/none", [("api-key", tokens.dying.secret)])
        await asyncio.to_thread(tokens.end, how)
        async with asyncio.timeout(5):  # the bound is one second; a busy machine may be late itself
            while (reply := await talk(gateway.port, data)).status != 401:
                await asyncio.sleep(0.02)
        check_error(reply, 401, "invalid_request_error", "invalid_api_key")


async def test_who_waits_for_an_answer_gets_a_status(tmp_path: Path) -> None:
    slow = Slow()
    async with scene(tmp_path, slow) as (tokens, upstream, gateway), connected(gateway.port) as client:
        await client.send(with_secret(tokens.dying.secret, CHAT))
        await slow.began.wait()
        await asyncio.to_thread(tokens.end, "revoke")
        check_error(await client.reply(2), 401, "invalid_request_error", "invalid_api_key")
        await upstream_is_left(upstream)


async def test_who_still_uploads_gets_a_status(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tokens, _, gateway), connected(gateway.port) as client:
        await client.send(with_secret(tokens.dying.secret)[:-10])
        await gateway.wait_started()
        await asyncio.to_thread(tokens.end, "revoke")
        check_error(await client.reply(2), 401, "invalid_request_error", "invalid_api_key")


async def test_who_does_not_read_cannot_keep_the_upstream(tmp_path: Path) -> None:
    """The error event cannot be delivered; the upstream's work ends all the same."""
    slow = Slow()
    async with scene(tmp_path, slow) as (tokens, upstream, gateway), connected(gateway.port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(with_secret(tokens.dying.secret, SAY))
        await slow.began.wait()
        await asyncio.to_thread(tokens.end, "revoke")
        await upstream_is_left(upstream, 2)
        await gateway.wait_idle(1)


async def test_expiry_lets_a_running_stream_go_on(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tokens, upstream, gateway), connected(gateway.port) as client:
        await start(client, tokens.living.secret)
        await asyncio.to_thread(tokens.service.create, BY, TokenSpec(name="another, so that the file is read again"))
        gateway.app.reload_tokens()
        await upstream.connections[0].chunk(b"data: [DONE]\n\n")
        assert await client.piece() == b"data: [DONE]\n\n"


async def test_a_file_that_is_away_for_a_moment_revokes_nothing(tmp_path: Path) -> None:
    """Editors replace a file by way of a moment without it, and last-used times may be due in that very moment."""
    async with scene(tmp_path) as (tokens, _, gateway), connected(gateway.port) as client:
        await start(client, tokens.living.secret)
        (tmp_path / "api_tokens.json").rename(tmp_path / "away")
        await gateway.flush_last_used()
        await gateway.refresh_tokens()
        data = request("GET", "/api/me", [("api-key", tokens.living.secret)])
        async with connected(gateway.port) as other:
            await other.send(data)
            assert (await other.head()).status == 200
        (tmp_path / "away").rename(tmp_path / "api_tokens.json")


async def test_a_file_that_is_gone_revokes_all(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tokens, _, gateway), connected(gateway.port) as client:
        await start(client, tokens.living.secret)
        (tmp_path / "api_tokens.json").unlink()
        last = await client.piece(5)
        assert last is not None
        assert b'"code":"invalid_api_key"' in last
        reply = await talk(gateway.port, with_secret(tokens.living.secret, CHAT))
        check_error(reply, 401, "invalid_request_error", "invalid_api_key")
        assert (await gateway.request("GET", "/readyz")).status == 503
