"""An upstream that misbehaves in every way that may bring an answer to the wrong request. Each answer has its request's id.

It never sends what no request has asked for while a request is on its way: nobody could tell such bytes from an answer. It looks
at its own socket first, in the same thread, so that this is certain.
"""

import asyncio
import gzip
import random
import re
import select
import socket
import struct
from collections import Counter
from typing import cast

REQUEST = re.compile(rb"[A-Z]+ /v1/(\d+)/([a-z0-9-]+) HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
IDS = re.compile(rb"\[id-(\d+)\]")

ANSWERS = ("length", "chunks", "pieces", "interim", "no-length", "old-version", "head", "no-content", "gzip", "early")
"""Ways in which the caller gets its answer, or the head of one."""
FAULTS = (
    "two", "junk", "empty-line", "idle-answer", "idle-408", "idle-byte", "too-long", "too-short", "cut", "cut-reset", "late",
    "interim-flood", "bad-chunk", "length-and-chunks", "body-of-204", "body-of-head", "switch", "reset-no-length", "drop",
    "close-behind", "wrong-gzip", "in-advance",
)  # fmt: skip
LATE_SECONDS = 1.6


def body_of(number: int) -> bytes:
    return b"[id-%d]" % number * 9


def whole(number: int, head: bytes = b"") -> bytes:
    body = body_of(number)
    return b"HTTP/1.1 200 OK\r\nX-Id: [id-%d]\r\n%sContent-Length: %d\r\n\r\n%s" % (number, head, len(body), body)


def chunked(number: int, size: bytes = b"%x") -> bytes:
    body, head = body_of(number), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(size % 9 + b"\r\n" + body[at : at + 9] + b"\r\n" for at in range(0, 45, 9)) + b"0\r\n\r\n"


class ExchangeUpstream(asyncio.Protocol):
    """One connection to it. ``counts`` has how often it has done what."""

    def __init__(self, rng: random.Random, counts: Counter[str]) -> None:
        self._rng, self._counts = rng, counts
        self._loop = asyncio.get_running_loop()
        self._requests = 0
        self._left = 0
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        taken = min(self._left, len(data))
        self._left -= taken
        self._buffer += data[taken:]
        if (end := self._buffer.find(b"\r\n\r\n")) < 0:
            return
        head, body = self._buffer[: end + 4], self._buffer[end + 4 :]
        found, length = REQUEST.match(head), LENGTH.search(head)
        if found is None:
            self._counts["half requests"] += 1
            self._transport.abort()
            return
        self._buffer = b""
        self._left = int(length[1]) - len(body) if length else 0
        self._requests += 1
        self._answer(int(found[1]), found[2].decode(), head.startswith(b"HEAD"))

    def _answer(self, number: int, way: str, is_head: bool) -> None:
        self._counts[way] += 1
        write, answer = self._transport.write, whole(number)
        simple = {
            "length": answer, "early": answer, "chunks": chunked(number), "two": answer * 2, "junk": answer + b"H",
            "empty-line": answer + b"\r\n", "in-advance": answer + whole(number, b"X-Advance: 1\r\n")[:-3],
            "interim": whole(number).replace(b"200 OK", b"103 Early", 1).split(b"\r\nContent-Length")[0] + b"\r\n\r\n" + answer,
            "interim-flood": b"HTTP/1.1 103 Early\r\n\r\n" * 150 + answer, "body-of-head": answer,
            "no-content": b"HTTP/1.1 204 No Content\r\nX-Id: [id-%d]\r\n\r\n" % number,
            "body-of-204": b"HTTP/1.1 204 No Content\r\n\r\n" + answer, "bad-chunk": chunked(number, b"-%x"),
            "too-short": answer.replace(b"Content-Length: ", b"Content-Length: 1\r\nX: "),
            "length-and-chunks": chunked(number).replace(b"chunked\r\n", b"chunked\r\nContent-Length: 5\r\n"),
            "switch": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + answer,
            "head": answer[: answer.index(b"\r\n\r\n") + 4],
            "wrong-gzip": answer.replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1),
        }  # fmt: skip
        if way in simple:
            write(simple[way])
        elif way == "gzip":
            packed = gzip.compress(body_of(number), 1)
            write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(packed), packed))
        elif way == "pieces":
            self._write_pieces(answer, 11)
        elif way.startswith("idle"):
            write(answer)
            said = {
                "idle-answer": answer,
                "idle-408": b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n",
                "idle-byte": b"H",
            }
            self._loop.call_later(self._rng.random() * 0.003, self._write_if_idle, said[way], self._requests)
        elif way == "late":
            self._loop.call_later(LATE_SECONDS, self._write_late, answer)
        else:
            self._end(way, number, answer, is_head)

    def _end(self, way: str, number: int, answer: bytes, is_head: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\n\r\n"
        said = {
            "no-length": head + body_of(number), "reset-no-length": head + body_of(number), "close-behind": answer,
            "old-version": answer.replace(b"HTTP/1.1", b"HTTP/1.0"), "drop": b"",
            "too-long": answer.replace(b"Content-Length: ", b"Content-Length: 9"),
        }.get(way, answer[: self._rng.randrange(len(answer))])  # fmt: skip
        self._transport.write(said)
        if way in ("cut-reset", "reset-no-length") or (way == "drop" and self._rng.random() < 0.5):
            sock: socket.socket = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._loop.call_soon(self._transport.abort)
        else:
            self._transport.close()

    def _write_pieces(self, data: bytes, size: int) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data[:size])
            self._loop.call_soon(self._write_pieces, data[size:], size)

    def _write_if_idle(self, data: bytes, requests: int) -> None:
        if requests == self._requests and not self._transport.is_closing() and not self._poll.poll(0):
            self._counts["answers that nobody has asked for"] += 1
            self._transport.write(data)

    def _write_late(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
