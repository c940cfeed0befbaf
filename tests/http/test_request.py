"""Bodies: bounded, plain, read only after the gate, and passed on while they arrive."""

import asyncio
from pathlib import Path

import pytest

from gateway.core.errors import RequestTimeout
from gateway.http import params
from gateway.http import request as http_request
from tests.support.connection import MemoryConnection
from tests.support.connection import request as memory_request
from tests.support.gateway import BEARER, CHAT, JSON, KEY, StartGateway, running_gateway
from tests.support.reply import check_error
from tests.support.upstream import Connection, Received, always, answer
from tests.support.wire import connected, gateway_before, post, request, talk

INVALID = "invalid_request_error"
LIMIT = 2**16
MB = str(LIMIT / 2**20)
GOOD = answer(b'{"choices":[]}')
PATHS = ["/v1/chat/completions", "/v1/files", "/v1/moderations", "/engines/m/completions"]


def sized(size: int) -> bytes:
    return CHAT[:-1] + b',"x":"' + b"y" * (size - len(CHAT) - 7) + b'"}'


def chunked(path: str, *parts: bytes, content_type: str = "application/json") -> bytes:
    head = request("POST", path, [BEARER, ("Content-Type", content_type), ("Transfer-Encoding", "chunked")])
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


async def test_the_limit_is_exact(tmp_path: Path) -> None:
    async with gateway_before(always(GOOD), tmp_path, GATEWAY_MAX_BODY_MB=MB) as (upstream, gateway):
        assert (await gateway.post(body=sized(LIMIT))).status == 200
        assert upstream.requests[0].body == sized(LIMIT)
        check_error(await gateway.post(body=sized(LIMIT + 1)), 413, INVALID, "request_too_large")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "multipart/form-data"])
async def test_too_large_in_chunks(tmp_path: Path, path: str, content_type: str) -> None:
    parts = [b"x" * 50_000] * ((LIMIT + 2**20) // 50_000 + 2)  # a form may have a megabyte more
    async with gateway_before(always(GOOD), tmp_path, GATEWAY_MAX_BODY_MB=MB) as (_, gateway):
        data = chunked(path, *parts, content_type=content_type)
        check_error(await talk(gateway.port, data), 413, INVALID, "request_too_large")


@pytest.mark.parametrize("path", PATHS)
async def test_too_large_is_said_before_it_has_come(tmp_path: Path, path: str) -> None:
    async with gateway_before(always(GOOD), tmp_path, GATEWAY_MAX_BODY_MB=MB) as (upstream, gateway):
        head = request("POST", path, [BEARER, JSON, ("Content-Length", "99999999999")])
        check_error(await talk(gateway.port, head), 413, INVALID, "request_too_large")
        assert not upstream.requests


async def test_a_length_that_lies(tmp_path: Path) -> None:
    """More than was declared is the next request's beginning, less is never a request."""
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        async with connected(gateway.port) as client:
            await client.send(post())
            assert (await client.reply()).status == 200
            await client.send(CHAT)
            check_error(await client.reply(), 400, INVALID, "invalid_http")
        async with connected(gateway.port) as client:
            await client.send(post()[:-5])
            client.writer.write_eof()
            await client.until_closed()
        assert [received.body for received in upstream.requests] == [CHAT]


@pytest.mark.parametrize("broken", [b"zz\r\n", b"5\r\nabc", b"-1\r\n", b"fffffffffffffffff\r\n"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
async def test_broken_chunks(tmp_path: Path, broken: bytes, path: str) -> None:
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        await client.send(chunked(path, b"{") + broken)
        client.writer.write_eof()
        answered = await client.until_closed()
        assert b" 200 " not in answered.split(b"\r\n")[0]
        assert not upstream.requests


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, gzip", "x-made-up"])
async def test_compressed(tmp_path: Path, path: str, encoding: str) -> None:
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        data = request("POST", path, [BEARER, JSON, ("Content-Encoding", encoding)], b"\x1f\x8b not really")
        check_error(await talk(gateway.port, data), 415, INVALID, "unsupported_encoding")
        assert not upstream.requests


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
@pytest.mark.parametrize("encoding", ["gzip, chunked", "deflate, chunked"])
async def test_compressed_on_the_way(tmp_path: Path, path: str, encoding: str) -> None:
    """Nobody here unpacks it, so the bytes are not what the client means."""
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        data = chunked(path, CHAT, b"").replace(b"Encoding: chunked", b"Encoding: " + encoding.encode())
        assert (await talk(gateway.port, data)).status in (400, 415, 501)
        assert not upstream.requests


async def test_identity_is_no_compression(tmp_path: Path) -> None:
    async with gateway_before(always(GOOD), tmp_path) as (_, gateway):
        data = request("POST", "/v1/chat/completions", [BEARER, JSON, ("Content-Encoding", "Identity")], CHAT)
        assert (await talk(gateway.port, data)).status == 200


EXPECT = ("Expect", "100-continue")


@pytest.mark.parametrize("path", PATHS)
async def test_go_on_is_not_said_to_strangers(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    head = request("POST", path, [JSON, EXPECT, ("Content-Length", "50")])
    check_error(await talk(gateway.port, head), 401, INVALID, None)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/rerank"])
async def test_go_on_is_said_to_those_with_a_key(tmp_path: Path, path: str) -> None:
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        await client.send(request("POST", path, [BEARER, JSON, EXPECT, ("Content-Length", str(len(CHAT)))]))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(CHAT)
        assert (await client.reply()).status == 200
        assert upstream.requests[0].body == CHAT
        assert upstream.requests[0].header("Expect") is None


async def test_go_on_is_not_said_for_what_is_too_large(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    head = request("POST", "/v1/chat/completions", [BEARER, JSON, EXPECT, ("Content-Length", "9999999999")])
    check_error(await talk(gateway.port, head), 413, INVALID, "request_too_large")


async def test_other_expectations(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    data = request("POST", "/v1/embeddings", [BEARER, JSON, ("Expect", "200-ok")], CHAT)
    check_error(await talk(gateway.port, data), 400, INVALID, "invalid_header")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/chat/completions", "application/json"),
        ("/v1/moderations", "application/json"),
        ("/v1/files", "multipart/form-data"),
    ],
)
async def test_a_body_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, content_type: str
) -> None:
    monkeypatch.setattr(http_request, "STALL_SECONDS", 0.05)
    async with gateway_before(always(GOOD), tmp_path) as (_, gateway):
        head = request("POST", path, [BEARER, ("Content-Type", content_type), ("Content-Length", "500")])
        check_error(await talk(gateway.port, head + b"{"), 408, INVALID, "request_timeout")


async def test_uploads_are_passed_on_while_they_arrive(tmp_path: Path) -> None:
    """The upstream has the first bytes before the client has sent the last ones."""
    got_first = asyncio.Event()
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        body = await reader.readuntil(b"first part")
        got_first.set()
        while b"last part" not in body:
            body += await reader.read(65536)
        seen.append(body)
        writer.write(answer(b'{"id":"file-1"}'))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    multipart = ("Content-Type", "multipart/form-data; boundary=b")
    async with (
        running_gateway(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=url) as gateway,
        connected(gateway.port) as client,
    ):
        await client.send(request("POST", "/v1/files", [BEARER, multipart, ("Content-Length", "19")]) + b"first part")
        async with asyncio.timeout(5):
            await got_first.wait()
        await client.send(b"last part")
        reply = await client.reply()
        assert (reply.status, reply.body) == (200, b'{"id":"file-1"}')
    server.close()
    assert b"content-type: multipart/form-data; boundary=b" in seen[0].lower()


async def test_an_upstream_may_refuse_an_upload_early(tmp_path: Path) -> None:
    said = b'{"error":{"message":"too big for me","type":"invalid_request_error","param":null,"code":null}}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(said, "413 Too Large"))
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with (
        running_gateway(tmp_path, FREEGPT_API_KEY=KEY, GATEWAY_UPSTREAM_URL=url) as gateway,
        connected(gateway.port) as client,
    ):
        await client.send(request("POST", "/v1/files", [BEARER, ("Content-Length", "5000000")]) + b"x" * 10_000)
        assert (await client.reply()).body == said
    server.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("body", [None, b"", b"\x00\xff raw", b"{}"])
async def test_any_method_any_body(tmp_path: Path, method: str, body: bytes | None) -> None:
    content_type = [JSON] if body == b"{}" else [("Content-Type", "audio/wav")]
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway):
        data = request(method, "/v1/files/file-1?purpose=a&x=%2F", [BEARER, *content_type], body)
        assert (await talk(gateway.port, data)).status == 200
    (received,) = upstream.requests
    assert (received.method, received.target) == (method, "/v1/files/file-1?purpose=a&x=%2F")
    assert received.body == (body or b"")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body(tmp_path: Path, status: str) -> None:
    said = f"HTTP/1.1 {status}\r\n\r\n".encode()
    async with gateway_before(always(said), tmp_path) as (_, gateway), connected(gateway.port) as client:
        for _ in range(2):  # the connection is fit for the next request
            await client.send(request("DELETE", "/v1/files/1", [BEARER]))
            assert (await client.reply()).status == int(status[:3])


async def test_head_is_passed_on(tmp_path: Path) -> None:
    async def behave(_received: Received, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nETag: x\r\n\r\n")

    async with gateway_before(behave, tmp_path) as (upstream, gateway):
        reply = await gateway.request("HEAD", "/v1/files/1/content", [BEARER])
        assert (reply.status, reply.header("etag")) == (200, "x")
        assert upstream.requests[0].method == "HEAD"


async def test_websockets_are_refused_politely(start_gateway: StartGateway) -> None:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x"), BEARER]
    gateway = await start_gateway(FREEGPT_API_KEY=KEY)
    reply = await gateway.request("GET", "/v1/realtime?model=m", upgrade)
    check_error(reply, 426, INVALID, "unsupported_upgrade")
    reply = await gateway.request("GET", "/v1/realtime?model=m", upgrade[:-1])
    check_error(reply, 401, INVALID, None)


async def test_a_body_that_trickles_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, but all together too slowly."""
    monkeypatch.setattr(http_request, "STALL_SECONDS", 0.3)
    async with gateway_before(always(GOOD), tmp_path) as (upstream, gateway), connected(gateway.port) as client:
        await client.send(request("POST", "/v1/chat/completions", [BEARER, JSON, ("Content-Length", "100000")]))
        reply = asyncio.create_task(client.reply())
        while not reply.done():
            client.writer.write(b" ")
            await asyncio.wait([reply], timeout=0.02)
        check_error(await reply, 408, INVALID, "request_timeout")
        assert not upstream.requests


async def test_a_body_that_keeps_up_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take much longer than the longest pause."""
    monkeypatch.setattr(http_request, "STALL_SECONDS", 0.2)
    connection = TricklingConnection(8, 1000)
    assert len(await memory_request(connection=connection).read(10_000)) == 8000


async def test_a_form_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestTimeout, match="too slowly"):
        await memory_request(connection=TricklingConnection(50, 5000)).read(10**6, seconds=0.2)


@pytest.mark.parametrize("path", ["/api/tokens/validate", "/api/tokens/revoke"])
async def test_public_routes_wait_for_a_body_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(params, "FORM_SECONDS", 0.2)
    async with gateway_before(always(GOOD), tmp_path) as (_, gateway), connected(gateway.port) as client:
        await client.send(request("POST", path, [JSON, ("Content-Length", "1000")]))
        reply = asyncio.create_task(client.reply())
        while not reply.done():
            client.writer.write(b" ")
            await asyncio.wait([reply], timeout=0.02)
        check_error(await reply, 408, INVALID, "request_timeout")


class TricklingConnection(MemoryConnection):
    """Sends ``count`` chunks of ``size`` bytes, one in 50 ms."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(*[b"x" * size] * count)

    async def read_chunk(self) -> bytes:
        await asyncio.sleep(0.05)
        return await super().read_chunk()
