"""Refuses new requests while the gateway shuts down."""

from gateway.core.errors import Draining
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware

_SERVED_WHILE_DRAINING = frozenset({"/healthz", "/readyz", "/metrics"})
"""Patterns of routes."""


class Drain(Middleware):
    """Lets every request pass until ``is_draining`` is set."""

    def __init__(self) -> None:
        self.is_draining = False

    async def before(self, ctx: RequestContext) -> None:
        """Raises Draining."""
        if self.is_draining and (ctx.route is None or ctx.route.pattern not in _SERVED_WHILE_DRAINING):
            raise Draining
