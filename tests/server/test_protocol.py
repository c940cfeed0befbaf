"""aiohttp's protocol with our bounds, as the reference that the server of our own is compared with."""

from gateway.server.aiohttp_server import AiohttpServer
from tests.server.server_contract import ServerContract


class TestHttpProtocol(ServerContract):
    make_server = AiohttpServer
