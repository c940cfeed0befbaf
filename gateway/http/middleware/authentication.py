"""Authentication and authorization: who calls, and may they use this route?

There are four modes, picked from the environment key and the token file (``auth.authenticator``): *open* lets clients of this
machine in without a credential; *environment*, *file* and *environment+file* require the environment key, an active token, or
one of both.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from gateway.auth import client_address, credentials, roles
from gateway.auth.authenticator import Authenticator
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.auth.roles import Access
from gateway.core.errors import Forbidden, UnknownCredential
from gateway.http.context import RequestContext
from gateway.http.middleware.base import Middleware
from gateway.tokens.last_used import LastUsedWriter
from gateway.tokens.uses import UseKey


class AuthenticationRules(NamedTuple):
    """What the operator allows besides keys."""

    allow_open: bool
    query_token: bool
    origins: frozenset[str]


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

    async def before(self, ctx: RequestContext) -> None:
        """Raises BadRequest, Unauthenticated, Forbidden, StoreUnavailable; and then what is wrong with the route."""
        query_tokens = self._take_query_tokens(ctx)
        if ctx.access is not Access.PUBLIC:
            await self._authenticate_and_authorize(ctx, query_tokens)
        if ctx.routing_error is not None:
            raise ctx.routing_error

    async def _authenticate_and_authorize(self, ctx: RequestContext, query_tokens: tuple[str, ...]) -> None:
        credential = credentials.extract(ctx.request.headers, query_tokens)
        try:
            principal = self._authenticate(ctx, credential)
        except UnknownCredential:
            # Another process may have made the token a moment ago.
            await self._refresh_tokens()
            principal = self._authenticate(ctx, credential)
        ctx.principal = principal
        if principal.secret_match is not None:
            self._note_use(ctx, principal)
        if principal.role not in roles.ALLOWED_ROLES[ctx.access]:
            raise roles.refusal(principal.role, ctx.access)

    def _take_query_tokens(self, ctx: RequestContext) -> tuple[str, ...]:
        """Takes ``token=`` out of the query in any case, and returns its values where they count as a credential."""
        if not ctx.query:
            return ()
        ctx.query, tokens = credentials.split_query(ctx.query)
        counts = ctx.path.startswith("/v1/") or (ctx.path.startswith("/api/") and ctx.method in ("GET", "HEAD"))
        return tokens if counts and self._rules.query_token else ()

    def _authenticate(self, ctx: RequestContext, credential: Credential | None) -> Principal:
        if ctx.access is Access.ADMIN_OR_LOOPBACK and credential is None and ctx.client.is_local:
            self._refuse_foreign_pages(ctx)
            return ANONYMOUS
        principal = self._authenticator.authenticate(credential, lambda: ctx.client)
        if principal is ANONYMOUS and not self._rules.allow_open:
            self._refuse_foreign_pages(ctx)
        return principal

    def _refuse_foreign_pages(self, ctx: RequestContext) -> None:
        """Raises Forbidden for a request that a web page from elsewhere may have made in a browser of this machine.

        Such a page either sends a request of its own, which carries its Origin, or lets a name of its own point to this
        machine, which then stands in Host.
        """
        origin = ctx.request.headers.get("Origin")
        if (
            origin is not None
            and origin.lower() not in self._rules.origins
            and not client_address.is_local_origin(origin)
        ):
            raise Forbidden(
                "Without a key, web pages from elsewhere are not served. Name their origin in GATEWAY_CORS_ORIGINS, or "
                "create a token (python token_manager.py create NAME) and send it."
            )
        if not client_address.is_local_name(ctx.request.headers.get("Host", "")):
            raise Forbidden(
                "Without a key, only requests to localhost or an IP address are served. Create a token "
                "(python token_manager.py create NAME) and send it, or set GATEWAY_ALLOW_OPEN=on."
            )

    def _note_use(self, ctx: RequestContext, principal: Principal) -> None:
        match = principal.secret_match
        if match is None:
            return
        if match.previous is None:
            self._last_used.note(UseKey(match.record.id), self._clock())
        else:
            self._last_used.note(UseKey(match.record.id, match.previous.hash), self._clock(), ctx.client.address)
