"""An upstream in a thread, for gateways in a process of their own."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class SlowUpstream:
    """Begins a stream for each request, and ends it when ``finish`` is called."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._finished = threading.Event()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    def finish(self) -> None:
        self._finished.set()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._stream, args=(connection,), daemon=True).start()

    def _stream(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(HEAD + _chunk(FIRST))
            self._finished.wait(60)
            with suppress(OSError):  # the gateway may have given the stream up
                connection.sendall(_chunk(LAST) + b"0\r\n\r\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def slow_upstream() -> Iterator[SlowUpstream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = SlowUpstream(listener)
        threading.Thread(target=upstream.serve, daemon=True).start()
        try:
            yield upstream
        finally:
            upstream.finish()
            listener.shutdown(socket.SHUT_RDWR)
