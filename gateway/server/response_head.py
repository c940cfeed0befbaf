"""Encodes the head of a whole response."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp.helpers import rfc822_formatted_time

from gateway.core.errors import GatewayError
from gateway.http.error_formats import openai_error
from gateway.http.request import HTTP_1_1

WITHOUT_BODY = frozenset({204, 304})
"""Statuses whose responses have no body, whatever the request was."""
_REASONS = MappingProxyType({status.value: status.phrase for status in HTTPStatus})


def encode_head(
    status: int, headers: Mapping[str, str], length: int, *, version: tuple[int, int], keeps_alive: bool
) -> bytes:
    """Returns the head of a whole response: the headers, and those for length, date and connection.

    Raises ValueError for a header that contains a line end: it would begin a header of somebody else's choice.
    """
    return _encode(
        status, headers, "" if status in WITHOUT_BODY else f"content-length: {length}\r\n", version, keeps_alive
    )


def error_response(error: GatewayError, request_id: str) -> tuple[bytes, bytes]:
    """Returns the head and the body of the response to what is not a request. The connection is closed after it."""
    headers = {
        "server": "gateway",
        "x-request-id": request_id,
        "Content-Type": "application/json",
        "x-content-type-options": "nosniff",
    }
    body = openai_error(error, str)
    return encode_head(error.status, headers, len(body), version=HTTP_1_1, keeps_alive=False), body


def encode_stream_head(
    status: int, headers: Mapping[str, str], *, is_chunked: bool, version: tuple[int, int], keeps_alive: bool
) -> bytes:
    """Returns the head of a response whose body follows in pieces: in chunks, or as the headers say.

    Raises ValueError as ``encode_head`` does.
    """
    return _encode(status, headers, "transfer-encoding: chunked\r\n" if is_chunked else "", version, keeps_alive)


def _encode(
    status: int, headers: Mapping[str, str], framing: str, version: tuple[int, int], keeps_alive: bool
) -> bytes:
    lines = "\r\n".join([*map(": ".join, headers.items()), ""])
    ends = lines.count("\r\n")
    if ends != len(headers) or lines.count("\n") != ends or lines.count("\r") != ends or "\0" in lines:
        raise ValueError("a header contains a line end")
    lines = f"{lines}{framing}date: {rfc822_formatted_time()}\r\n"
    if not keeps_alive or version < HTTP_1_1:
        lines += f"connection: {'keep-alive' if keeps_alive else 'close'}\r\n"
    head = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{lines}\r\n"
    return head.encode("utf-8", "surrogateescape")
