"""A small upstream that streams: the events of a chat completion, evenly spaced, each its own HTTP chunk.

Raw asyncio, because it shares a core with the load generator and must stay cheaper than what is measured.
"""

import argparse
import asyncio
import json
from typing import cast

import uvloop

from bench.payloads import CREATED, MODEL, models_answer

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(choices: list[object], **more: object) -> bytes:
    body = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    return b"data: " + json.dumps({**body, "choices": choices, **more}).encode() + b"\n\n"


def content_event(number: int) -> bytes:
    delta = {"content": f" word{number}"}
    return event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])


def usage_event(count: int) -> bytes:
    usage = {"prompt_tokens": 41, "completion_tokens": count, "total_tokens": 41 + count}
    return event([], usage=usage)


def wants_usage(body: bytes) -> bool:
    options = json.loads(body).get("stream_options") or {}
    return bool(options.get("include_usage"))


def plain_answer(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class Script:
    """The bytes every stream sends, made once, and the pace."""

    def __init__(self, count: int, interval: float) -> None:
        self.chunks = [http_chunk(content_event(number)) for number in range(count)]
        self.interval = interval
        self.end = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self.end_with_usage = http_chunk(usage_event(count)) + self.end


class Connection(asyncio.Protocol):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.loop = asyncio.get_running_loop()
        self.received = b""
        self.closes = False
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's: `isinstance` would refuse them.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, rest = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = content_length(head)
        if len(rest) >= length:
            self.received = rest[length:]
            self.answer(head, rest[:length])

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"POST "):
            self.transport.write(STREAM_HEAD)
            self.send(0, self.loop.time(), self.last_bytes(head, body))
        else:
            self.transport.write(plain_answer("200 OK", models_answer()))

    def last_bytes(self, head: bytes, body: bytes) -> bytes:
        self.closes = b"connection: close" in head.lower()
        return self.script.end_with_usage if wants_usage(body) else self.script.end

    def send(self, number: int, start: float, last: bytes) -> None:
        """Sends one event and sets the clock for the next; by absolute time, lateness must not add up."""
        script = self.script
        if number == len(script.chunks):
            self.finish(last)
            return
        self.transport.write(script.chunks[number])
        due = start + (number + 1) * script.interval
        self.timer = self.loop.call_at(due, self.send, number + 1, start, last)

    def finish(self, last: bytes) -> None:
        self.transport.write(last)
        if self.closes:
            self.transport.close()


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def serve(port: int, script: Script) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(script), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--interval", type=float, default=0.010, help="seconds between two events")
    options = parser.parse_args()
    uvloop.run(serve(options.port, Script(options.chunks, options.interval)))


if __name__ == "__main__":
    main()
