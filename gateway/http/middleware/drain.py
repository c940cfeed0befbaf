"""Refuses new requests while the gateway shuts down."""

from gateway.core.errors import Draining
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.http.middleware.in_flight import InFlightRequests

ABORT_SECONDS = 5.0
"""How long aborted requests may take to end."""
_SERVED_WHILE_DRAINING = frozenset({"/healthz", "/readyz", "/metrics"})
"""Patterns of routes."""


class Drain(Middleware):
    """Lets every request pass until ``drain`` is called."""

    def __init__(self, in_flight: InFlightRequests) -> None:
        self._in_flight = in_flight
        self.is_draining = False
        """Whether balancers should send no more requests here."""
        self._is_refusing = False

    def before(self, ctx: RequestContext) -> None:
        """Raises Draining."""
        if self._is_refusing and (ctx.route is None or ctx.route.pattern not in _SERVED_WHILE_DRAINING):
            raise Draining

    def announce(self) -> None:
        """Makes ``/readyz`` say that the end is near. Requests are still served."""
        self.is_draining = True

    async def drain(self, seconds: float) -> None:
        """Refuses new requests, lets the running ones end, and aborts them after ``seconds``."""
        self.is_draining = self._is_refusing = True
        if await self._in_flight.wait_idle(seconds):
            return
        self._in_flight.abort_where(Draining, lambda ctx: True)
        await self._in_flight.wait_idle(ABORT_SECONDS)
