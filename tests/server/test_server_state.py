"""What the connections of a server share."""

import asyncio

from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.http1_connection import Http1Connection
from gateway.server.server_state import ServerState
from tests.server.server_contract import Echo


async def test_a_server_begins_without_connections() -> None:
    echo = Echo()
    state = ServerState(echo, ConnectionTimeouts(), 1000)
    assert (state.handler, state.open, state.coarse_timeouts.is_checking) == (echo, set(), False)


async def test_the_end_of_the_last_connection_is_told() -> None:
    state = ServerState(Echo(), ConnectionTimeouts(), 1000)
    await state.wait_until_closed()
    connections = [Http1Connection(state), Http1Connection(state)]
    state.open.update(connections)
    waiting = asyncio.create_task(state.wait_until_closed())
    for connection in connections:
        await asyncio.sleep(0)
        assert not waiting.done()
        state.remove(connection)
    await waiting
