"""One request and its response: how a body is framed for each kind of client."""

import pytest

from gateway.http.request import Request
from gateway.server.http1_server import Http1Server
from tests.server.server_contract import HandlerServer
from tests.support.wire import connected

PIECES = [b"abc", b"", b"defgh"]


async def _raw_reply(data: bytes, headers: dict[str, str], ends: bool = True, status: int = 200) -> bytes:
    async def handle(received: Request) -> None:
        connection = received.connection
        await connection.start(status, headers)
        for piece in PIECES:
            await connection.write(piece)
        if ends:
            await connection.finish()
        else:
            connection.break_off()

    server = HandlerServer(Http1Server, handle)
    await server.start_server()
    assert server.port is not None
    try:
        async with connected(server.port) as client:
            await client.send(data)
            try:
                return await client.reader.read(-1)
            except ConnectionResetError:
                return b"reset"
    finally:
        await server.close()


CLOSE = b"Connection: close\r\n\r\n"


def _request(method: str, version: int) -> bytes:
    return f"{method} / HTTP/1.{version}\r\nHost: x\r\n".encode() + CLOSE


async def test_to_http_1_1_a_body_goes_in_chunks() -> None:
    head, _, body = (await _raw_reply(_request("GET", 1), {})).partition(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked\r\n" in head
    assert body == b"3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n"


async def test_to_http_1_0_a_body_ends_with_the_connection() -> None:
    head, _, body = (await _raw_reply(_request("GET", 0), {})).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"abcdefgh"


@pytest.mark.parametrize(("length", "sent"), [(8, b"abcdefgh"), (4, b"abcd"), (9, b"abcdefgh")])
async def test_a_length_that_the_head_names_is_not_exceeded(length: int, sent: bytes) -> None:
    head, _, body = (await _raw_reply(_request("GET", 1), {"Content-Length": str(length)})).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert body == sent


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_some_responses_have_no_body(method: str, status: int) -> None:
    reply = await _raw_reply(_request(method, 1), {}, status=status)
    assert reply.endswith(b"\r\n\r\n")
    assert b"abc" not in reply


async def test_a_response_that_is_broken_off_has_no_end() -> None:
    assert (await _raw_reply(_request("GET", 1), {}, ends=False)).endswith(b"defgh\r\n")
    assert await _raw_reply(_request("GET", 0), {}, ends=False) == b"reset"
