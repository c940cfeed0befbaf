"""Builds requests in every form of bad HTTP: parts of a request, and what spoils them."""

import random
from collections.abc import Callable
from typing import NamedTuple

LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""Sent behind each case, so that a gateway that has understood all of it closes the connection."""
NAMES = (
    b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Expect", b"Upgrade", b"Content-Type", b"X-A", b"TE",
    b"Content_Length", b"Transfer\x00-Encoding", b"Content-Length ", b" Host", b"X A", b"", b":", b"X\xff", b"Trailer",
    b"Content-Encoding", b"Proxy-Connection", b"Keep-Alive", b"Sec-WebSocket-Key", b"HTTP2-Settings",
)  # fmt: skip
VALUES = (
    b"0", b"1", b"5", b"64", b"+5", b"-1", b"0x5", b"5, 5", b"5,6", b"5 5", b"99999999999999999999", b"chunked", b"Chunked",
    b"chunked, chunked", b"gzip, chunked", b"chunked, identity", b"identity", b"xchunked", b"chunked;q=1", b"close",
    b"keep-alive", b"close, upgrade", b"100-continue", b"websocket", b"h2c", b"localhost", b"a b", b"", b"\x00", b"\x0b5",
    b"\xa05", b"\x85", b"a\rb", b"a\nb", b"a\r\n b", b"x" * 9000, b"application/json", b"gzip", b"\xc3\xa9", b"\t5\t",
    b"5\x0c",
)  # fmt: skip
LINE_ENDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n ",
    b"\r\n\t",
    b"",
    b"\r\n\r\n",
    b"\x0b\r\n",
    b"\x00\r\n",
    b" \r\n",
)
REQUEST_LINES = (
    b"GET /v1/models HTTP/1.1", b"GET  /v1/models HTTP/1.1", b"GET /v1/models  HTTP/1.1", b"GET /v1/models",
    b"get /v1/models HTTP/1.1", b"GET /v1/models HTTP/1.0", b"GET /v1/models HTTP/1.2", b"GET /v1/models HTTP/2.0",
    b"GET /v1/models HTTP/1.1 ", b" GET / HTTP/1.1", b"GET\t/v1/models\tHTTP/1.1", b"GET /v1/mod\x00els HTTP/1.1",
    b"GET /v1/mod els HTTP/1.1", b"PRI * HTTP/2.0", b"GET / http/1.1", b"CONNECT localhost:1 HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"HEAD /healthz HTTP/1.1", b"GET http://x/v1/models HTTP/1.1", b"TRACE / HTTP/1.1", b"M-SEARCH * HTTP/1.1",
    b"G\xc9T / HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET #a HTTP/1.1", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02", b"GET / HTTP/11",
    b"GET /" + b"x" * 9000 + b" HTTP/1.1", b"GET / HTTP/1.1\x00", b"POST /api/tokens/validate HTTP/1.1",
)  # fmt: skip


class Parts(NamedTuple):
    """A request before it becomes bytes."""

    lines: list[bytes]
    body: bytes
    line_end: bytes = b"\r\n"

    @property
    def data(self) -> bytes:
        return self.line_end.join([*self.lines, b"", b""]) + self.body


def chunked(rng: random.Random, body: bytes) -> bytes:
    """Mostly as it should be."""
    data = b""
    while body:
        size = rng.randrange(1, len(body) + 1)
        data += b"%x\r\n%s\r\n" % (size, body[:size])
        body = body[size:]
    data += b"0\r\n" + rng.choice((b"", b"", b"X-Trailer: trailer\r\n")) + b"\r\n"
    if rng.random() < 0.7:
        return data
    old, new = rng.choice((
        (b"\r\n", b"\n"), (b"\r\n", b""), (b"\r\n", b";a=b\r\n"), (b"\r\n", b" \r\n"), (b"\r\n", b";a\n\r\n"),
        (b"0\r\n", b"00\r\n"), (b"0\r\n\r\n", b"0\r\n"), (b"0\r\n", b"0\r\nContent-Length: 5\r\n"), (b"\r\n", b"\r"),
        (b"0\r\n", b"-0\r\n"), (b"0\r\n", b"0x0\r\n"), (b"\r\n", b"g\r\n"), (b"0\r\n", b"ffffffffffffffff1\r\n"),
        (b"\r\n", b"x\r\n"), (b"\r\n", b";\x00\r\n"), (b"\r\n", b"\t;a\r\n"),
    ))  # fmt: skip
    at = rng.randrange(len(data))
    return data[:at] + data[at:].replace(old, new, 1)


def add_header(rng: random.Random, parts: Parts) -> Parts:
    line = rng.choice(NAMES) + rng.choice((b":", b": ", b": ", b": ", b" :", b":\t", b"", b"::")) + rng.choice(VALUES)
    lines = list(parts.lines)
    lines.insert(rng.randrange(1, len(lines) + 1), line)
    return parts._replace(lines=lines)


def repeat_line(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(lines))
    return parts._replace(lines=lines)


def remove_line(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    del lines[rng.randrange(len(lines))]
    return parts._replace(lines=lines)


def change_value(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    at = rng.randrange(len(lines))
    lines[at] = lines[at].partition(b":")[0] + b": " + rng.choice(VALUES)
    return parts._replace(lines=lines)


def change_request_line(rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(lines=[rng.choice(REQUEST_LINES), *parts.lines[1:]])


def change_line_end(rng: random.Random, parts: Parts) -> Parts:
    lines = list(parts.lines)
    at = rng.randrange(len(lines))
    lines[at : at + 2] = [rng.choice(LINE_ENDS).join(lines[at : at + 2])]
    return parts._replace(lines=lines, line_end=rng.choice((b"\r\n",) * 9 + LINE_ENDS[1:3]))


def many_headers(rng: random.Random, parts: Parts) -> Parts:
    count, size = rng.choice(((200, 10), (3000, 10), (10, 8000), (1, 70_000), (9, 7000)))
    return parts._replace(lines=[*parts.lines, *[b"X-%d: %s" % (number, b"a" * size) for number in range(count)]])


def change_body(rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(
        body=rng.choice((b"", parts.body * 2, parts.body[:-1], parts.body + b"\r\n", LAST, b"0\r\n\r\n"))
    )


def fold(_rng: random.Random, parts: Parts) -> Parts:
    return parts._replace(lines=[line.replace(b": ", b":\r\n ", 1) for line in parts.lines])


MUTATORS: tuple[Callable[[random.Random, Parts], Parts], ...] = (
    add_header, add_header, add_header, repeat_line, remove_line, change_value, change_request_line, change_line_end,
    many_headers, change_body, fold,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    piece = rng.choice((b"\r", b"\n", b" ", b"\x00", b"\t", b":", b"\x7f", b"\xff", b"", b"", b"\r\n", b"0", LAST))
    return data[:at] + piece + data[at + rng.randrange(3) :]
