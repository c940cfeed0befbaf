"""What the connections of a server share."""

from gateway.server.deadlines import ConnectionTimeouts
from gateway.server.server_state import ServerState
from tests.server.server_contract import Echo


async def test_a_server_begins_without_connections() -> None:
    echo = Echo()
    state = ServerState(echo, ConnectionTimeouts(), 1000)
    assert (state.handler, state.open, state.coarse_timeouts.is_checking) == (echo, set(), False)
