"""Creates aiohttp's parser for the heads of requests, and the errors for what it refuses."""

import asyncio
import re
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser

from gateway.core.errors import BadRequest, GatewayError, HeaderTooLarge
from gateway.server.head_limits import MAX_HEADERS

_BUFFER_BYTES = 2**24
_DUPLICATE = re.compile(r"Duplicate '([A-Za-z-]{1,40})' header")


def parser_error(message: str, max_head_bytes: int) -> GatewayError:
    """Returns the error for what the parser refuses. Only known parts of its message are passed on."""
    if message.startswith("Too many headers"):
        return HeaderTooLarge(max_head_bytes, MAX_HEADERS)
    if (found := _DUPLICATE.match(message)) is not None:
        return BadRequest(f"The request has the header {found[1]} twice. Send it once.", code="invalid_http")
    return BadRequest("The request is not valid HTTP.", code="invalid_http")


def create_parser(loop: asyncio.AbstractEventLoop, max_head_bytes: int, *, reads_body: bool = False) -> Any:
    """Returns a parser of one request after the other, or with ``reads_body`` of one with its body.

    One header may have all of ``max_head_bytes``: aiohttp's own limits are those of a line. A parser without ``reads_body`` makes
    no reader of a body, which takes longer than parsing the head, and must not be used after a head that announces one.
    """
    return HttpRequestParser(
        ParserOwner(loop),
        loop,
        _BUFFER_BYTES,
        max_line_size=max_head_bytes,
        max_field_size=max_head_bytes,
        max_headers=MAX_HEADERS,
        response_with_body=reads_body,
        auto_decompress=False,  # compressed bodies are refused, so nothing may unpack them first
    )


class ParserOwner(BaseProtocol):
    """What aiohttp's parser and its reader need a protocol for: reading is paused by the body, not by them."""

    def pause_reading(self) -> None:
        """Does nothing."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Does nothing."""
