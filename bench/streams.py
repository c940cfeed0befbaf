"""The load of streams: many at once, each on its own connection, read to the end and then checked whole."""

import asyncio
import time
from dataclasses import dataclass

import uvloop

from bench.payloads import stream_request
from bench.processes import BenchError, Server

DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Stream:
    raw: bytes
    reads: int
    first_event_seconds: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    events: int
    events_per_read: float  # near 1: each event was passed on as it came; large: somebody gathers them
    first_event_ms: float  # the median stream's
    seconds: float  # the slowest stream's


def run(server: Server, token: str, streams: int, chunks: int) -> Outcome:
    request = request_bytes(server.command.port, token)
    return uvloop.run(all_streams(server, request, streams, chunks))


async def all_streams(server: Server, request: bytes, streams: int, chunks: int) -> Outcome:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            done = await asyncio.gather(*(one_stream(server.command.port, request) for _ in range(streams)))
    except OSError as error:  # TimeoutError is one
        raise BenchError(f"{server.name} did not finish its streams: {error!r}") from error
    for stream in done:
        check(stream.raw, chunks, server.name)
    events = streams * chunks
    return Outcome(
        events=events,
        events_per_read=events / sum(stream.reads for stream in done),
        first_event_ms=sorted(stream.first_event_seconds for stream in done)[streams // 2] * 1e3,
        seconds=max(stream.seconds for stream in done),
    )


def request_bytes(port: int, token: str) -> bytes:
    body = stream_request()
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


async def one_stream(port: int, request: bytes) -> Stream:
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    pieces: list[bytes] = []
    first = 0.0
    while piece := await reader.read(65536):
        pieces.append(piece)
        if not first and b"data: " in piece:
            first = time.perf_counter() - began
    writer.close()
    return Stream(b"".join(pieces), len(pieces), first, time.perf_counter() - began)


def check(raw: bytes, chunks: int, name: str) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    lowered = head.lower()
    if not lowered.startswith(b"http/1.1 200") or b"text/event-stream" not in lowered:
        raise BenchError(f"{name} did not answer with a stream: {raw[:500]!r}")
    text = unchunked(body) if b"transfer-encoding: chunked" in lowered else body
    events = text.count(b"data: {")
    if events != chunks or not text.endswith(b"data: [DONE]\n\n"):
        raise BenchError(f"{name} passed on {events} of {chunks} events; the stream ends with {text[-80:]!r}")


def unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while body:
        size_line, _, rest = body.partition(b"\r\n")
        size = int(size_line.split(b";")[0], 16)
        pieces.append(rest[:size])
        body = rest[size + 2 :] if size else b""
    return b"".join(pieces)
