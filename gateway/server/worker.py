"""Runs one worker: it serves a listening socket until it is told to stop, and then drains."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from gateway.core.tasks import BackgroundTasks
from gateway.http.request import Request
from gateway.server.head_limits import MAX_HEAD_BYTES
from gateway.server.http1_server import Http1Server
from gateway.server.supervisor import END_NOW

log = logging.getLogger(__name__)

BACKLOG = 1024
_ORPHAN_CHECK_SECONDS = 1.0


class Application(Protocol):
    """What a worker serves."""

    @property
    def handle(self) -> Callable[[Request], Awaitable[None]]:
        """The function that answers a request."""

    async def start(self) -> None:
        """Is called before the first request."""

    def announce_drain(self) -> None:
        """Is called when the end is near: requests are still served, but no more of them should come."""

    async def drain(self, seconds: float) -> None:
        """Waits for running requests for ``seconds``, and then aborts them."""

    async def stop(self) -> None:
        """Is called after the last request."""


A = TypeVar("A", bound=Application)


class Serving(NamedTuple, Generic[A]):
    """What a worker is given: a function that makes the application inside the event loop, how long it may drain, a function
    that is told when requests are served, and how large the head of a request may be.

    ``drain_delay`` seconds pass between the signal and the drain, in which load balancers learn of it.
    """

    make: Callable[[], A]
    drain_delay: float
    drain_seconds: float
    on_ready: Callable[[A], None]
    reload: Callable[[A], Awaitable[None]]
    """Is awaited at SIGHUP. Afterwards the application may have another ``handle``."""
    max_head_bytes: int = MAX_HEAD_BYTES


def bind(host: str, port: int) -> socket.socket:
    """Returns a listening socket. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def run(serving: Serving[A], listener: socket.socket, parent: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT. ``parent`` is the supervisor whose death ends this worker, too.

    Raises what making the application raises.
    """
    try:
        _run_loop(Worker(serving, listener, parent).serve())
    finally:
        logging.shutdown()  # a forked process ends without it, and with it the last lines


class Worker(Generic[A]):
    """Serves one socket."""

    def __init__(self, serving: Serving[A], listener: socket.socket, parent: int | None) -> None:
        self._serving = serving
        self._listener = listener
        self._parent = parent
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._must_reload = asyncio.Event()

    async def serve(self) -> None:
        """Serves until it is told to stop."""
        loop = asyncio.get_running_loop()
        app = self._serving.make()
        await app.start()
        http = Http1Server(app.handle, max_head_bytes=self._serving.max_head_bytes)
        server = await loop.create_server(http, sock=self._listener, backlog=BACKLOG)
        self._listen_to_signals(loop)
        self._serving.on_ready(app)
        tasks = BackgroundTasks()
        tasks.keep(lambda: self._reload_when_told(app, http), "reload the settings")
        await self._wait_for_the_end()
        await tasks.aclose()
        await self._wait_for_balancers(app)
        server.close()
        await self._drain(app)  # kept connections go on meanwhile, and are told
        http.pre_shutdown()
        await http.shutdown(1.0)
        await app.stop()

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(END_NOW, self._on_end_now)
        # Ctrl-C reaches the whole process group; under a supervisor it is the supervisor that passes it on, once.
        loop.add_signal_handler(signal.SIGINT, self._on_stop if self._parent is None else _nothing)
        loop.add_signal_handler(signal.SIGHUP, self._must_reload.set)
        # Under a supervisor they were blocked until now, so that none could kill a worker that is just starting.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())

    async def _reload_when_told(self, app: A, http: Http1Server) -> None:
        while True:
            await self._must_reload.wait()
            self._must_reload.clear()
            await self._serving.reload(app)
            http.handler = app.handle

    def _on_stop(self) -> None:
        """Begins the drain at the first signal, and ends it at the second."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def _on_end_now(self) -> None:
        self._stop_now.set()
        self._stop.set()

    async def _wait_for_the_end(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ORPHAN_CHECK_SECONDS if self._parent else None):
                    await self._stop.wait()
            if self._parent and os.getppid() != self._parent:
                log.error("the supervisor is gone, this worker ends")
                return

    async def _wait_for_balancers(self, app: Application) -> None:
        app.announce_drain()
        if self._serving.drain_delay:
            log.info("still serving, until balancers know of the end", extra={"seconds": self._serving.drain_delay})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._serving.drain_delay):
                    await self._stop_now.wait()

    async def _drain(self, app: Application) -> None:
        log.info("draining", extra={"seconds": self._serving.drain_seconds})
        drain = asyncio.create_task(app.drain(self._serving.drain_seconds), name="drain")
        now = asyncio.create_task(self._stop_now.wait(), name="second signal")
        await asyncio.wait((drain, now), return_when=asyncio.FIRST_COMPLETED)
        now.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.wait([drain])
            await app.drain(0)


def _nothing() -> None:
    """Ignores a signal that the supervisor handles."""


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs on uvloop where it is installed, which it is not on Windows."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
