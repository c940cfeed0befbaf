"""Limits of a request's head, and the errors for heads that aiohttp's parser refuses."""

import re

from gateway.core.errors import BadRequest, GatewayError, HeaderTooLarge

MAX_HEAD_BYTES = 64 * 1024
"""The request line and all headers of a request together, unless a setting says otherwise."""
MAX_HEADERS = 512
_DUPLICATE = re.compile(r"Duplicate '([A-Za-z-]{1,40})' header")


def parser_error(message: str, max_head_bytes: int) -> GatewayError:
    """Returns the error for what the parser refuses. Only known parts of its message are passed on."""
    if message.startswith("Too many headers"):
        return HeaderTooLarge(max_head_bytes, MAX_HEADERS)
    if (found := _DUPLICATE.match(message)) is not None:
        return BadRequest(f"The request has the header {found[1]} twice. Send it once.", code="invalid_http")
    return BadRequest("The request is not valid HTTP.", code="invalid_http")
