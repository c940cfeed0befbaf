"""A connection of the server of our own does what aiohttp's protocol does, on the event loop of asyncio and on uvloop."""

import asyncio

import pytest

from gateway.http.request import Request
from gateway.server.deadlines import ConnectionTimeouts, ReadDeadline
from gateway.server.http1_connection import Http1Connection
from gateway.server.http1_server import Http1Server
from gateway.server.server_state import ServerState
from tests.server.server_contract import CHUNKED, GET, LONG, Echo, ServerContract, settled
from tests.server.test_client_socket import MemoryTransport
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

    async def test_a_chunk_whose_size_arrives_alone_does_not_end_the_body(self) -> None:
        began, echo = asyncio.Event(), Echo()

        async def handle(received: Request) -> None:
            began.set()
            await echo(received)

        async with self.serving(handle) as client:
            await client.send(CHUNKED)
            await began.wait()
            for piece in (b"3", b"\r\n", b"abc\r\n", b"3;x", b"=y\r\n", b"def\r", b"\n0\r\n", b"X: y\r\n", b"\r\n"):
                await client.send(piece)
                await settled(lambda: echo.count)
            assert (await client.reply()).body == b"POST / abcdef"

    async def test_a_whole_body_that_nobody_has_read_does_not_stop_the_connection(self) -> None:
        began, may_answer = asyncio.Event(), asyncio.Event()

        async def handle(received: Request) -> None:
            began.set()
            await may_answer.wait()
            await received.connection.send(401, {}, b"", closes=False)

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", "150000")]))
            await began.wait()
            await client.send(b"x" * 150_000)
            await settled(client.writer.transport.get_write_buffer_size)
            may_answer.set()
            assert (await client.reply()).status == 401
            await client.send(GET)
            assert (await client.reply()).status == 401

    async def test_a_request_that_cancels_its_own_task_leaves_no_connection_without_one(self) -> None:
        async def handle(received: Request) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await received.connection.send(200, {}, b"sent", closes=False)

        async with self.serving(handle) as client:
            await client.send(GET)
            assert (await client.reply()).body == b"sent"
            assert await client.until_closed() == b""

    async def test_a_connection_error_of_another_connection_is_answered(self) -> None:
        async def handle(received: Request) -> None:
            raise ConnectionResetError("by the upstream")

        async with self.serving(handle) as client:
            await client.send(GET)
            assert (await client.reply()).status == 500
            assert await client.until_closed() == b""

    async def test_a_stream_of_http_1_0_that_fails_does_not_look_whole(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.start(200, {})
            await received.connection.write(b"some")
            raise ValueError("made up")

        async with self.serving(handle) as client:
            await client.send(request("GET", "/", version="1.0"))
            with pytest.raises(ConnectionResetError):
                await client.reader.read()

    async def test_a_client_that_was_not_told_to_send_its_body_is_not_kept(self) -> None:
        """It may go on with a request where the server waits for the body (RFC 9110 10.1.1)."""

        async def handle(received: Request) -> None:
            await received.connection.send(401, {}, b"", closes=False)

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", str(len(GET))), ("Expect", "100-continue")]))
            reply = await client.reply()
            assert (reply.status, reply.header("connection")) == (401, "close")
            await client.send(GET + GET)
            assert await client.until_closed() == b""

    async def test_a_client_that_was_told_to_send_its_body_is_kept(self) -> None:
        async with self.serving(Echo()) as client:
            await client.send(request("POST", "/", [("Content-Length", "3"), ("Expect", "100-continue")]))
            assert (await client.head()).status == 100
            await client.send(b"abc" + GET)
            assert [(await client.reply()).body for _ in range(2)] == [b"POST / abc", b"GET / "]

    async def test_http_1_0_knows_no_expectations(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(401, {}, b"", closes=False)

        headers = [("Content-Length", "3"), ("Expect", "100-continue"), ("Connection", "keep-alive")]
        async with self.serving(handle) as client:
            await client.send(request("POST", "/", headers, version="1.0"))
            assert (await client.reply()).header("connection") == "keep-alive"
            await client.send(b"abc" + GET)
            assert (await client.reply()).status == 401

    async def test_a_stream_says_that_a_client_that_was_not_told_to_send_its_body_is_not_kept(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.start(200, {})
            await received.connection.finish()

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", "5"), ("Expect", "100-continue")]))
            assert (await client.reply()).header("connection") == "close"

    @pytest.mark.parametrize("is_chunked", [False, True])
    async def test_no_more_is_read_of_a_body_than_is_taken(self, is_chunked: bool) -> None:
        began, may_end = asyncio.Event(), asyncio.Event()

        async def handle(received: Request) -> None:
            await received.connection.read_chunk()
            began.set()
            await may_end.wait()
            received.connection.abort()

        head = CHUNKED + b"5f5e100\r\n" if is_chunked else request("POST", "/", [("Content-Length", "100000000")])
        async with self.serving(handle) as client:
            client.writer.write(head + b"x" * 30_000_000)
            await began.wait()
            assert await settled(client.writer.transport.get_write_buffer_size) > 15_000_000
            may_end.set()

    async def test_nothing_is_written_behind_the_end_of_a_connection(self) -> None:
        raised: list[str] = []

        async def handle(received: Request) -> None:
            received.connection.abort()
            try:
                await received.connection.write(b"more")
            except ConnectionError as error:
                raised.append(str(error))

        async with self.serving(handle) as client:
            await client.send(GET)
            await settled(lambda: len(raised))
        assert raised == ["the client has gone"]

    async def test_trailers_are_in_no_request(self) -> None:
        async def handle(received: Request) -> None:
            await received.read(100)
            names = " ".join(sorted(received.headers)).encode()
            await received.connection.send(200, {}, names, closes=False)

        trailer = b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
        async with self.serving(handle) as client:
            await client.send(CHUNKED + trailer + GET)
            assert [(await client.reply()).body for _ in range(2)] == [b"Host Transfer-Encoding", b"Host"]

    async def test_an_unread_body_is_not_waited_for_without_end(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.send(401, {}, b"", closes=False)

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", "5")]) + b"a")
            assert (await client.reply()).status == 401
            assert await client.until_closed() == b""

    async def test_nothing_is_answered_after_an_unread_body_of_the_last_request(self) -> None:
        echo = Echo()

        async def handle(received: Request) -> None:
            echo.count += 1
            await received.connection.send(401, {}, b"", closes=True)

        async with self.serving(handle) as client:
            await client.send(request("POST", "/", [("Content-Length", "5")]) + b"a")
            assert (await client.reply()).status == 401
            await client.send(b"bcde" + GET)
            assert (await client.until_closed(), echo.count) == (b"", 1)

    async def test_a_head_that_came_in_parts_has_no_time_limit_once_it_is_whole(self) -> None:
        late = asyncio.Event()

        async def handle(received: Request) -> None:
            timeouts.start(ReadDeadline(0.0, late.set))
            await late.wait()
            await received.connection.send(200, {}, b"", closes=False)

        state = ServerState(handle, ConnectionTimeouts(0.0, 60), 1000)
        timeouts = state.coarse_timeouts
        connection, transport = Http1Connection(state), MemoryTransport()
        connection.connection_made(transport)
        connection.data_received(GET[:20])
        connection.data_received(GET[20:])
        await late.wait()
        await asyncio.sleep(0)
        assert [written[:12] for written in transport.written] == [b"HTTP/1.1 200"]
        connection.connection_lost(None)

    async def test_a_stream_waits_for_a_client_that_takes_nothing(self) -> None:
        steps: list[str] = []

        async def handle(received: Request) -> None:
            await received.connection.start(200, {})
            for step in ("first", "second"):
                await received.connection.write(step.encode())
                steps.append(step)
            connection.pause_writing()
            await received.connection.finish()
            steps.append("end")

        state = ServerState(handle, LONG, 1000)
        connection, transport = Http1Connection(state), MemoryTransport()
        connection.connection_made(transport)
        connection.pause_writing()
        connection.data_received(GET)
        for expected in ([], ["first", "second"], ["first", "second", "end"]):
            await settled(lambda: len(steps))
            assert steps == expected
            connection.resume_writing()
        connection.connection_lost(None)

    async def test_a_connection_that_is_to_close_says_so_and_closes_after_the_rest_of_a_body(self) -> None:
        async def handle(received: Request) -> None:
            await received.connection.start(200, {"Content-Length": "0"})
            await received.connection.finish()

        state = ServerState(handle, LONG, 1000)
        connection, transport = Http1Connection(state), MemoryTransport()
        connection.connection_made(transport)
        connection.data_received(request("POST", "/", [("Content-Length", "5")]))
        await settled(lambda: len(transport.written))
        connection.must_close = True
        connection.data_received(b"abcde")
        assert (transport.is_closing(), b"connection: close" in transport.written[0]) == (True, False)
        connection.connection_lost(None)
        connection, transport = Http1Connection(state), MemoryTransport()
        connection.connection_made(transport)
        connection.must_close = True
        connection.data_received(GET)
        await settled(lambda: len(transport.written))
        assert (transport.is_closing(), b"connection: close" in transport.written[0]) == (True, True)
        connection.connection_lost(None)
