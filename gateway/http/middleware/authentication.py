"""Authentication and authorization: who calls, and may they use this route?

There are four modes, picked from the environment key and the token file (``auth.authenticator``): *open* lets clients of this
machine in without a credential; *environment*, *file* and *environment+file* require the environment key, an active token, or
one of both.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.auth import credentials, roles
from gateway.auth.authenticator import Authenticator
from gateway.auth.credentials import Credential
from gateway.auth.local_client import LocalClients
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.auth.roles import Access
from gateway.core.errors import Forbidden, Unauthenticated, UnknownCredential
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.tokens.last_used import LastUsedWriter


class AuthenticationRules(NamedTuple):
    """What the operator allows besides keys."""

    query_token: bool
    local_clients: LocalClients
    has_proxies: bool
    """Whether a setting names a proxy."""


class Authentication(Middleware):
    """Finds the principal of a request, notes that its token was used, and checks that its role may use the route.

    Credentials of requests for public routes are ignored. Only authenticated callers learn that a path has no route.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        rules: AuthenticationRules,
        refresh_tokens: Callable[[], Awaitable[None]],
        last_used: LastUsedWriter,
        clock: Callable[[], float],
    ) -> None:
        """``refresh_tokens`` reads the tokens anew; ``clock`` is in seconds since the epoch."""
        self._authenticator = authenticator
        self._rules = rules
        self._refresh_tokens = refresh_tokens
        self._last_used = last_used
        self._clock = clock

    def before(self, ctx: RequestContext) -> Awaitable[None] | None:
        """Raises BadRequest, Unauthenticated, Forbidden, StoreUnavailable; and then what is wrong with the route.

        Returns an awaitable where the credential is not known: another process may have made the token a moment ago.
        """
        query_tokens = self._take_query_tokens(ctx) if ctx.query else ()
        if ctx.access is not Access.PUBLIC:
            credential = credentials.extract(ctx.request.headers, query_tokens)
            try:
                principal = self._authenticate(ctx, credential)
            except UnknownCredential:
                return self._authenticate_once_more(ctx, credential)
            self._authorize(ctx, principal)
        if ctx.routing_error is not None:
            raise ctx.routing_error
        return None

    async def _authenticate_once_more(self, ctx: RequestContext, credential: Credential | None) -> None:
        await self._refresh_tokens()
        self._authorize(ctx, self._authenticate(ctx, credential))
        if ctx.routing_error is not None:
            raise ctx.routing_error

    def _authorize(self, ctx: RequestContext, principal: Principal) -> None:
        ctx.principal = principal
        if (key := principal.use_key) is not None:
            self._last_used.note(key, self._clock(), None if key.previous_hash is None else ctx.client_address)
        if principal.role not in roles.ALLOWED_ROLES[ctx.access]:
            raise roles.refusal(principal.role, ctx.access)

    def _take_query_tokens(self, ctx: RequestContext) -> tuple[str, ...]:
        """Takes ``token=`` out of the query in any case, and returns its values where they count as a credential."""
        ctx.query, tokens = credentials.split_query(ctx.query)
        counts = ctx.path.startswith("/v1/") or (ctx.path.startswith("/api/") and ctx.method in ("GET", "HEAD"))
        return tokens if counts and self._rules.query_token else ()

    def _authenticate(self, ctx: RequestContext, credential: Credential | None) -> Principal:
        if ctx.access is Access.ADMIN_OR_LOOPBACK and credential is None and self._strict_refusal(ctx) is None:
            return ANONYMOUS
        try:
            principal = self._authenticator.authenticate(
                credential, lambda: self._rules.local_clients.refusal(ctx.arrival)
            )
        except Forbidden as error:
            if ctx.access is Access.ADMIN_OR_LOOPBACK and credential is None:
                # A monitoring system gets the same status before the first token is created as after it.
                raise Unauthenticated(error.message) from None
            raise
        if (
            principal is ANONYMOUS
            and ctx.access is Access.MANAGE
            and (refusal := self._strict_refusal(ctx)) is not None
        ):
            raise Forbidden(
                f"Without a key, only clients on the gateway's own machine create tokens over HTTP. This request is refused "
                f"because {refusal}. Create the first token with: python token_manager.py create NAME"
            )
        return principal

    def _strict_refusal(self, ctx: RequestContext) -> str | None:
        """Returns why a client is not local enough to create tokens or to read metrics without a key; None if it is.

        Where a proxy is configured, it may let anybody through without a sign, and a name that the operator allows may be one
        that others use, too.
        """
        if self._rules.has_proxies:
            return "GATEWAY_TRUSTED_PROXIES names a proxy"
        return self._rules.local_clients._replace(hosts=frozenset()).refusal(ctx.arrival)
