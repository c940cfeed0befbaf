"""An upstream whose responses are spoiled at random: heads, framing, encodings, events, and what follows behind them.

Each response carries the marker of its request and no other, so that bytes which reach another caller are recognised.
"""

import asyncio
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

from tests.support.upstream import Connection, Received

MARKER = re.compile(rb"\[marker-(\d+)-\1\]")
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def marker(number: int) -> bytes:
    return b"[marker-%d-%d]" % (number, number)


class Answer(NamedTuple):
    """A response in its parts. ``interim`` goes before the head, ``behind`` after the body, ``end`` is what happens then."""

    head: list[bytes]
    payload: bytes
    framing: str = "length"
    interim: bytes = b""
    behind: bytes = b""
    end: str = "keep"
    cut: float = 1.0
    """The part of the bytes that is sent at all."""


def json_answer(own: bytes) -> Answer:
    content = {
        "id": own.decode(),
        "choices": [{"message": {"content": own.decode() * 3}}],
        "usage": {"prompt_tokens": 1},
    }
    return Answer([b"HTTP/1.1 200 OK", b"Content-Type: application/json"], json.dumps(content).encode())


def stream_answer(rng: random.Random, own: bytes) -> Answer:
    payload = EVENT % own * rng.randrange(1, 6) + END
    return Answer([b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream"], payload, "chunked")


def change_status(rng: random.Random, answer: Answer) -> Answer:
    line = rng.choice((
        b"HTTP/1.1 500 Oops", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified",
        b"HTTP/1.1 302 Found", b"HTTP/1.0 200 OK",
        b"HTTP/1.1 429 Slow", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 999 X", b"HTTP/1.1 20 X",
        b"HTTP/2 200", b"200 OK",
        b"HTTP/1.1 200", b"HTTP/1.1 200 \xff\x80", b"\x00", b"HTTP/1.1  200 OK", b"GET / HTTP/1.1",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 401 No", b"HTTP/1.1 206 Partial", b"HTTP/1.1 -20 X", b"HTTP/1.1 2000 OK",
        b"http/1.1 200 ok", b"HTTP/1.1 205 R",
    ))  # fmt: skip
    return answer._replace(head=[line, *answer.head[1:]])


def add_header(rng: random.Random, answer: Answer) -> Answer:
    line = rng.choice((
        b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
        b"Content-Length: 5, 5", b"X: a\x00b",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: x",
        b"Content-Encoding: gzip",
        b"Content-Encoding: br", b"Content-Encoding: zstd", b"Content-Encoding: deflate",
        b"Content-Encoding: x", b"Connection: close",
        b"Content-Type: text/html", b"Content-Type: text/event-stream", b"Content-Type: \xff/\x85",
        b"Content-Type: application/json",
        b"Retry-After: -1", b"Retry-After: \x85", b"x-request-id: a\tb", b"x-request-id: \xe2\x80\xae",
        b"no colon", b" folded: x",
        b"X: " + b"a" * 70_000, b"Set-Cookie: a=b", b"Upgrade: h2c", b"Connection: upgrade",
        b"Location: http://evil.example/",
        b"Keep-Alive: timeout=0", b"Trailer: x", b"openai-processing-ms: NaN",
        b"x-ratelimit-limit-requests: \r", b"Name : x", b": x",
        b"Content-Disposition: attachment; filename=\"a\"", b"Content-Range: bytes 0-1/2",
        b"retry-after-ms: 1e999", b"X\xff: y",
    ))  # fmt: skip
    return answer._replace(head=[*answer.head, line])


def many_headers(rng: random.Random, answer: Answer) -> Answer:
    return answer._replace(
        head=[*answer.head, *[b"X-%d: y" % number for number in range(rng.choice((100, 600, 30_000)))]]
    )


def encode(rng: random.Random, answer: Answer) -> Answer:
    kind = rng.choice((b"gzip", b"deflate"))
    packed = gzip.compress(answer.payload) if kind == b"gzip" else zlib.compress(answer.payload)
    packed = rng.choice(
        (packed, packed, packed[:-4], packed[: len(packed) // 2], packed + b"x", packed * 2, b"x" + packed)
    )
    return answer._replace(head=[*answer.head, b"Content-Encoding: " + kind], payload=packed)


def interim(rng: random.Random, answer: Answer) -> Answer:
    one = rng.choice(
        (
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
            b"HTTP/1.1 102 P\r\nContent-Length: 3\r\n\r\n",
        )
    )
    return answer._replace(interim=(b"HTTP/1.1 " + one) * rng.choice((1, 2, 99, 101, 5000)))


def change_framing(rng: random.Random, answer: Answer) -> Answer:
    return answer._replace(
        framing=rng.choice(("length", "chunked", "close", "both", "none", "long", "short", "bad chunks"))
    )


def cut(rng: random.Random, answer: Answer) -> Answer:
    return answer._replace(cut=rng.random(), end=rng.choice(("close", "reset", "stall")))


def end_otherwise(rng: random.Random, answer: Answer) -> Answer:
    return answer._replace(end=rng.choice(("close", "reset", "keep")))


def spoil_payload(rng: random.Random, answer: Answer) -> Answer:
    data = answer.payload
    at = rng.randrange(len(data) + 1)
    piece = rng.choice((
        b"\n\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b"\xff", b"data: [DONE]\n\n",
        b'data: {"error":{"message":"no"}}\n\n', b"event: error\n",
        b":\n\n", b"data:", b"\xef\xbb\xbf", b"{}", b'"', b"\xe2\x80\xa8", b"[" * 5000, b'{"error":',
        b"data: " + b"x" * 100_000, b"id: \n\n",
    ))  # fmt: skip
    return answer._replace(payload=data[:at] + piece + data[at + rng.choice((0, 0, 1, 20, 1000)) :])


def append(rng: random.Random, answer: Answer) -> Answer:
    """Bytes that no request has asked for: a whole response of the same marker, half of one, or anything else."""
    found = MARKER.search(answer.payload)
    body = b'{"id":"%s","stale":true,"choices":[]}' % (found[0] if found else b"")
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    return answer._replace(
        behind=rng.choice(
            (whole, whole, whole * 3, whole[:30], whole[:-5], b"x", b"\r\n", b"\n", b"0\r\n\r\n", b"\x00" * 9)
        )
    )


MUTATORS: tuple[Callable[[random.Random, Answer], Answer], ...] = (
    change_status, add_header, add_header, encode, interim, change_framing, cut, cut, end_otherwise, spoil_payload,
    spoil_payload, append, append, many_headers,
)  # fmt: skip


def frame(rng: random.Random, answer: Answer) -> bytes:
    """The head with the framing, and the payload in it."""
    payload, length = answer.payload, len(answer.payload)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in pieces(rng, payload)) + b"0\r\n\r\n"
    if answer.framing == "bad chunks":
        at = rng.randrange(len(chunks))
        chunks = chunks[:at] + rng.choice((b"", b"\r\n", b"x", b"\n", b"-", b";")) + chunks[at + 1 :]
    coding = b"Transfer-Encoding: chunked"
    lines, body = {
        "length": ([b"Content-Length: %d" % length], payload),
        "long": ([b"Content-Length: %d" % (length + 7)], payload),
        "short": ([b"Content-Length: %d" % max(0, length - 7)], payload),
        "chunked": ([coding], chunks),
        "bad chunks": ([coding], chunks),
        "both": ([coding, b"Content-Length: %d" % length], chunks),
        "close": ([b"Connection: close"], payload),
        "none": ([], payload),
    }[answer.framing]
    return answer.interim + b"\r\n".join([*answer.head, *lines, b"", body])


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Cuts anywhere, also within an event."""
    found = []
    while data:
        size = rng.randrange(1, rng.choice((4, 60, 2000, 200_000)))
        found.append(data[:size])
        data = data[size:]
    return found


class HostileUpstream:
    """Answers each request as its case says: the generator is that of the number in the request's marker."""

    def __init__(self, make_random: Callable[[int], random.Random]) -> None:
        self._make_random = make_random
        self.payloads: dict[int, bytes] = {}
        """By the number of the case: what was sent, before it was framed or cut."""

    async def __call__(self, received: Received, connection: Connection) -> None:
        found = MARKER.search(received.body)
        if found is None:
            await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return
        rng = self._make_random(int(found[1]))
        plain = stream_answer(rng, found[0]) if b'"stream":true' in received.body else json_answer(found[0])
        answer = plain
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            answer = rng.choice(MUTATORS)(rng, answer)
        self.payloads[int(found[1])] = answer.payload
        data = frame(rng, answer)
        data = data[: int(len(data) * answer.cut)] + answer.behind
        await self._send(rng, connection, data)
        await self._end(answer, connection)

    async def _send(self, rng: random.Random, connection: Connection, data: bytes) -> None:
        for piece in [data] if rng.random() < 0.4 else pieces(rng, data):
            await connection.send(piece)
            if rng.random() < 0.2:
                await asyncio.sleep(0)

    async def _end(self, answer: Answer, connection: Connection) -> None:
        if answer.end == "reset":
            connection.reset()
        elif answer.end == "stall":
            await connection.wait_closed()
        elif answer.end == "close" or answer.framing in ("close", "none"):
            connection.writer.close()
