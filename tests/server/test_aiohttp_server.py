"""The adapter to aiohttp's server needs aiohttp's C parser. What it does on a socket is in ``test_protocol``."""

from gateway.server.aiohttp_server import require_c_parser


def test_the_c_parser_is_there() -> None:
    require_c_parser()
