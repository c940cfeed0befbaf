"""The sending side of a connection, on a transport in memory."""

import asyncio

import pytest

from gateway.core.timeouts import CoarseTimeouts
from gateway.server.client_socket import ClientSocket
from gateway.server.deadlines import ConnectionTimeouts


class MemoryTransport(asyncio.Transport):
    def __init__(self, **extra: object) -> None:
        super().__init__(extra)
        self.written: list[bytes] = []
        self.unsent = 0
        self.end = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return bool(self.end)

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self) -> None:
        self.end = "aborted"

    def get_write_buffer_size(self) -> int:
        return self.unsent


def connected(transport: MemoryTransport, seconds: float = 60.0) -> ClientSocket:
    client = ClientSocket(CoarseTimeouts(0.001), ConnectionTimeouts(60, seconds))
    client.connection_made(transport)
    return client


async def test_addresses_are_those_of_internet_sockets() -> None:
    client = connected(MemoryTransport(peername=("10.0.0.1", 5), sockname=("10.0.0.2", 6)))
    assert (client.peer_address, client.own_address) == ("10.0.0.1", "10.0.0.2")
    on_a_path = connected(MemoryTransport(peername="", sockname="/run/gateway.sock"))
    assert (on_a_path.peer_address, on_a_path.own_address) == (None, None)


async def test_nothing_is_written_to_a_connection_that_is_lost() -> None:
    transport = MemoryTransport()
    client = connected(transport)
    client.write(b"a")
    client.connection_lost(None)
    client.write(b"b")
    assert (transport.written, client.is_closing, client.file_descriptor) == ([b"a"], True, None)
    with pytest.raises(ConnectionResetError):
        await client.drain()


async def test_whoever_waits_for_a_client_goes_on_when_it_takes_something() -> None:
    client = connected(MemoryTransport())
    await client.drain()
    client.pause_writing()
    waiting = asyncio.create_task(client.drain())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.resume_writing()
    await waiting


async def test_whoever_waits_for_a_client_is_told_that_it_has_gone() -> None:
    client = connected(MemoryTransport())
    client.pause_writing()
    waiting = asyncio.create_task(client.drain())
    await asyncio.sleep(0)
    client.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await waiting


async def test_a_client_that_takes_nothing_after_the_end_is_disconnected() -> None:
    transport = MemoryTransport()
    transport.unsent = 5
    client = connected(transport, seconds=0.0)
    client.close()
    async with asyncio.timeout(5):
        while transport.end != "aborted":
            await asyncio.sleep(0.001)
