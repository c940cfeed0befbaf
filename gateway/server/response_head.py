"""Encodes the head of a whole response."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from aiohttp.helpers import rfc822_formatted_time

from gateway.http.request import HTTP_1_1

WITHOUT_BODY = frozenset({204, 304})
"""Statuses whose responses have no body, whatever the request was."""
_REASONS = MappingProxyType({status.value: status.phrase for status in HTTPStatus})


def encode_head(
    status: int, headers: Mapping[str, str], length: int, *, version: tuple[int, int], keeps_alive: bool
) -> bytes:
    """Returns the head of a whole answer: the headers, and those for length, date and connection.

    Raises ValueError for a header that contains a line end: it would begin a header of somebody else's choice.
    """
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status not in WITHOUT_BODY:
        lines.append(f"content-length: {length}")
    lines.append(f"date: {rfc822_formatted_time()}")
    if not keeps_alive:
        lines.append("connection: close")
    elif version < HTTP_1_1:
        lines.append("connection: keep-alive")
    head = "\r\n".join((*lines, "", ""))
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1 or "\0" in head:
        raise ValueError("a header contains a line end")
    return head.encode("utf-8", "surrogateescape")
