"""The gate: from a bare request to a caller who may do what the route does. Plain steps; each may raise, none writes."""

from collections.abc import Callable, Sequence

from gateway.auth import client_address, credentials, roles
from gateway.auth.authenticator import Authenticator
from gateway.auth.client_address import Client
from gateway.auth.credentials import Credential
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.auth.roles import Access
from gateway.config.parsers import Network
from gateway.core.errors import Forbidden, MethodNotAllowed, NotFound
from gateway.http import path_validation
from gateway.http.context import RequestContext
from gateway.http.routes import Route, Router

NoteUse = Callable[[Principal, Client], None]


class GateRules:
    """What the operator allows, beside keys."""

    def __init__(
        self, trusted_proxies: Sequence[Network], allow_open: bool, query_token: bool, origins: frozenset[str]
    ) -> None:
        self.trusted_proxies = trusted_proxies
        self.allow_open = allow_open
        self.query_token = query_token
        self.origins = origins


class Gate:
    """Decides on the resolved route: a path that has none takes a valid credential, too, before it is called unknown."""

    def __init__(self, router: Router, authenticator: Authenticator, rules: GateRules, note_use: NoteUse) -> None:
        self._router = router
        self._authenticator = authenticator
        self._rules = rules
        self._note_use = note_use

    def admit(self, ctx: RequestContext) -> Route:
        """Find the route and let the caller through it. Raises BadRequest, Unauthenticated, Forbidden, NotFound …

        After UnknownCredential it may be asked again.
        """
        match = self._router.find(ctx.path, ctx.method)
        problem = path_validation.problem_with(ctx.path) if match is None or match.params else None
        if problem is not None:
            match = None
        if match is not None:
            ctx.route, ctx.params = match.route, match.params
        ctx.client = self._client(ctx)
        query_tokens = self._take_query_tokens(ctx)
        wanted = match.access if match else Access.ANY
        if wanted is not Access.PUBLIC:
            ctx.principal = self._caller(ctx, wanted, credentials.extract(ctx.request.headers, query_tokens))
            if ctx.principal.secret_match is not None:
                self._note_use(ctx.principal, ctx.client)
            roles.authorize(ctx.principal, wanted)
        if match is None:
            raise _unknown(ctx, problem)
        if match.route is None:
            raise MethodNotAllowed(ctx.method[:20], ctx.path, match.methods)
        return match.route

    def _client(self, ctx: RequestContext) -> Client:
        peer = ctx.request.transport.get_extra_info("peername") if ctx.request.transport else None
        headers = ctx.request.headers
        was_forwarded = client_address.was_forwarded(headers)
        forwarded_for = headers.getall("X-Forwarded-For", ()) if was_forwarded else ()
        return client_address.client_of(
            peer[0] if peer else None, forwarded_for, was_forwarded, self._rules.trusted_proxies
        )

    def _take_query_tokens(self, ctx: RequestContext) -> tuple[str, ...]:
        """Out of the URL in any case; a credential only where the contract says so."""
        if ctx.query:
            ctx.query, tokens = credentials.split_query(ctx.query)
            ctx.query_tokens += tokens
        if not ctx.query_tokens:
            return ()
        counts = ctx.path.startswith("/v1/") or (ctx.path.startswith("/api/") and ctx.method in ("GET", "HEAD"))
        return ctx.query_tokens if counts and self._rules.query_token else ()

    def _caller(self, ctx: RequestContext, wanted: Access, credential: Credential | None) -> Principal:
        if wanted is Access.ADMIN_OR_LOOPBACK and credential is None and ctx.client.is_local:
            self._refuse_strange_pages(ctx)
            return ANONYMOUS
        caller = self._authenticator.authenticate(credential, ctx.client)
        if caller is ANONYMOUS and not self._rules.allow_open:
            self._refuse_strange_pages(ctx)
        return caller

    def _refuse_strange_pages(self, ctx: RequestContext) -> None:
        """Where being on this machine is all that a caller has to show, a web page must not borrow the browser's place:
        not with a request of its own (it carries an Origin), nor by a name that it points here (it carries that Host)."""
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


def _unknown(ctx: RequestContext, problem: str | None) -> NotFound:
    if problem:
        return NotFound(f"Invalid URL: the path {problem}.", code="unknown_url")
    return NotFound(f"Invalid URL ({ctx.method[:20]} {ctx.path[:200]})", code="unknown_url")
