"""Ends what runs on a token that has been revoked or deleted."""

from collections.abc import Callable

from gateway.auth.roles import Access
from gateway.core.errors import Unauthenticated
from gateway.http.context import RequestContext
from gateway.http.middleware.in_flight import InFlightRequests
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status


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

        error = Unauthenticated("Invalid API key provided: it has been revoked.", code="invalid_api_key")
        self._in_flight.abort_where(error, is_revoked)
