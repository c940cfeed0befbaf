"""A connection of the server of our own does what aiohttp's protocol does."""

from gateway.http.request import Request
from gateway.server.http1_server import Http1Server
from tests.server.server_contract import GET, ServerContract, settled
from tests.support.wire import request


class TestHttp1Connection(ServerContract):
    make_server = Http1Server

    async def test_an_unread_body_is_read_on_so_that_the_response_arrives(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(401, {}, b"no key", closes=False)

        async with self.serving(handle) as client:
            client.writer.write(request("POST", "/", body=b"x" * 1_500_000) + GET)
            replies = [await client.reply(30) for _ in range(2)]
        assert [reply.status for reply in replies] == [401, 401]

    async def test_what_a_handler_raises_is_answered_and_the_connection_closed(self) -> None:
        async def handle(received: Request) -> None:
            raise ValueError("made up")

        async with self.serving(handle) as client:
            await client.send(GET + GET)
            reply = await client.reply()
            assert (reply.status, reply.header("connection")) == (500, "close")
            assert await client.until_closed() == b""

    async def test_a_connection_is_kept_for_upgrades_that_are_refused(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(426, {}, b"", closes=False)

        upgrade = request("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "websocket")])
        async with self.serving(handle) as client:
            for _ in range(2):
                await client.send(upgrade)
                assert (await client.reply()).status == 426

    async def test_a_client_that_leaves_cancels_its_request_while_it_uploads(self) -> None:
        ended: list[str] = []

        async def handle(received: Request) -> None:
            try:
                await received.read(10**6)
            finally:
                ended.append("ended")

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", "100")]) + b"some")
            client.writer.transport.abort()
            assert await settled(lambda: len(ended)) == 1
