"""An upstream with one fixed answer. nginx would be as fast, but refuses the second `Authorization` of some gateways.

Raw asyncio, because it shares a core with the load generator.
"""

import argparse
import asyncio
from pathlib import Path
from typing import cast

import uvloop

from bench.payloads import models_answer
from bench.stream_upstream import content_length


class Connection(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's: `isinstance` would refuse them.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end]
        size = end + 4 + content_length(head)
        if len(self.received) >= size:
            self.received = self.received[size:]
            self.transport.write(MODELS if head.startswith(b"GET ") else self.answer)


def block(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


MODELS = block(models_answer().encode())
"""Some gateways ask which models an upstream has, before they send it anything."""


async def serve(port: int, answer: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(answer), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port, block(options.body.read_bytes())))


if __name__ == "__main__":
    main()
