"""The requests that are being answered now: counted for the drain, aborted when their token is revoked, and closed when
their client has disconnected without the event loop noticing."""

import asyncio
import select
from collections.abc import Awaitable, Callable

from gateway.auth.principal import ENVIRONMENT_KEY
from gateway.auth.roles import Access
from gateway.core.errors import GatewayError, Unauthenticated
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status

DISCONNECT_CHECK_SECONDS = 0.25
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
"""On systems without this flag a reset is still reported, a mere end of sending is not."""


class InFlightRequests(Middleware):
    """Each request with the task that answers it."""

    def __init__(self) -> None:
        self._tasks: dict[RequestContext, asyncio.Task[object]] = {}
        self._idle: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def before(self, ctx: RequestContext) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks[ctx] = task

    def after(self, ctx: RequestContext, status: int) -> None:
        self._tasks.pop(ctx, None)
        if self._idle is not None and not self._tasks:
            self._idle.set()

    def abort_where(
        self, make_error: Callable[[], GatewayError], is_concerned: Callable[[RequestContext], bool]
    ) -> int:
        """Ends every request that is concerned with an error of its own. Returns how many."""
        concerned = [ctx for ctx in self._tasks if ctx.abort_error is None and is_concerned(ctx)]
        for ctx in concerned:
            ctx.abort_error = make_error()
            self._tasks[ctx].cancel()
        return len(concerned)

    async def after_present(self, then: Callable[[], Awaitable[None]]) -> None:
        """Awaits ``then`` once all requests have ended that are answered now, or when it is cancelled."""
        present = set(self._tasks)
        try:
            while True:
                await asyncio.sleep(DISCONNECT_CHECK_SECONDS)
                if present.isdisjoint(self._tasks):
                    return
        finally:
            await then()

    async def wait_idle(self, seconds: float) -> bool:
        """Waits until no request is left, ``seconds`` at most. Returns whether none is left."""
        self._idle = asyncio.Event()
        if not self._tasks:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def watch_disconnects(self) -> None:
        """Closes the connections of clients that have disconnected, until cancelled."""
        while True:
            await asyncio.sleep(DISCONNECT_CHECK_SECONDS)
            self.close_disconnected()

    def close_disconnected(self) -> None:
        """Closes the connections of clients that have disconnected, which cancels their requests.

        While a client's bytes are held back - an upload that the upstream does not take, too many pipelined requests - the
        event loop does not read from its socket, and so does not see it disconnect. The kernel knows all the same.
        """
        poll = select.poll()
        connections = {}
        for ctx in self._tasks:
            connection = ctx.request.connection
            if (descriptor := connection.file_descriptor) is not None:
                connections[descriptor] = connection
                poll.register(descriptor, _PEER_CLOSED)
        for descriptor, _ in poll.poll(0):
            connections[descriptor].abort()


class RevocationListener:
    """Is told of every change of the tokens. ``clock`` is in seconds since the epoch."""

    def __init__(self, in_flight: InFlightRequests, clock: Callable[[], float]) -> None:
        self._in_flight = in_flight
        self._clock = clock

    def on_tokens_changed(self, tokens: TokenHierarchy) -> None:
        """Aborts requests for inference whose secret is revoked or gone.

        Expiry lets what has begun go on. Managing tokens is over in a moment, and a token may revoke itself.
        """

        def is_revoked(ctx: RequestContext) -> bool:
            secret_hash = ctx.principal.secret_hash if ctx.principal else ""
            if not secret_hash or ctx.route is None or ctx.access is not Access.INFERENCE:
                return False
            match = tokens.find_by_digest(secret_hash)
            return match is None or tokens.secret_status(match, self._clock()) is Status.REVOKED

        self._in_flight.abort_where(_revoked, is_revoked)


def abort_environment_key(in_flight: InFlightRequests, before: str | None, after: str | None) -> None:
    """Aborts the requests for inference of the environment key, where it is another one now."""
    if before != after:
        in_flight.abort_where(_revoked, lambda ctx: ctx.principal is ENVIRONMENT_KEY and ctx.access is Access.INFERENCE)


def _revoked() -> Unauthenticated:
    return Unauthenticated("Invalid API key provided: it has been revoked.", code="invalid_api_key")
