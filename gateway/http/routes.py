"""Every route on one screen, and how a path finds its row. ``access`` has no default: it cannot be forgotten."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web

from gateway.auth.roles import Access
from gateway.http.context import RequestContext
from gateway.http.endpoints.check import CheckEndpoints
from gateway.http.endpoints.health import HealthEndpoints
from gateway.http.endpoints.me import MeEndpoints
from gateway.http.endpoints.openai import OpenAIEndpoints
from gateway.http.endpoints.openapi import OpenApiEndpoints
from gateway.http.endpoints.tokens import TokenEndpoints
from gateway.http.endpoints.usage import UsageEndpoints
from gateway.http.endpoints.user_keys import UserKeyEndpoints

Handler = Callable[[RequestContext], Awaitable[web.StreamResponse]]

GET = ("GET", "HEAD")
POST = ("POST",)
PATCH = ("PATCH",)
DELETE = ("DELETE",)
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Route(NamedTuple):
    """``{name}`` in a pattern is one segment, ``{name...}`` one or more; both arrive percent-decoded."""

    methods: tuple[str, ...]
    pattern: str
    access: Access
    handler: Handler


class Endpoints(NamedTuple):
    """Everybody who answers."""

    inference: OpenAIEndpoints
    tokens: TokenEndpoints
    user_keys: UserKeyEndpoints
    me: MeEndpoints
    check: CheckEndpoints
    usage: UsageEndpoints
    description: OpenApiEndpoints
    ops: HealthEndpoints


def routes(to: Endpoints) -> tuple[Route, ...]:
    """The table. The first pattern that fits wins; rows of one pattern differ in their methods."""
    return (
        Route(GET, "/healthz", Access.PUBLIC, to.ops.healthz),
        Route(GET, "/readyz", Access.PUBLIC, to.ops.readyz),
        Route(GET, "/metrics", Access.ADMIN_OR_LOOPBACK, to.ops.metrics),
        Route(GET, "/openapi.json", Access.PUBLIC, to.description.openapi),
        Route(GET, "/docs", Access.PUBLIC, to.description.page),
        Route(POST, "/api/tokens/validate", Access.PUBLIC, to.tokens.validate),
        Route(POST, "/api/tokens/revoke", Access.PUBLIC, to.tokens.revoke_secret),
        Route(GET, "/api/tokens", Access.ANY, to.tokens.list),
        Route(POST, "/api/tokens", Access.MANAGE, to.tokens.create),
        Route(GET, "/api/tokens/{id}", Access.ANY, to.tokens.read),
        Route(PATCH, "/api/tokens/{id}", Access.MANAGE, to.tokens.update),
        Route(DELETE, "/api/tokens/{id}", Access.MANAGE, to.tokens.delete),
        Route(POST, "/api/tokens/{id}/revoke", Access.MANAGE, to.tokens.revoke),
        Route(POST, "/api/tokens/{id}/rotate", Access.MANAGE, to.tokens.rotate),
        Route(GET, "/api/tokens/{id}/usage", Access.ANY, to.tokens.usage),
        Route(GET, "/api/me", Access.ANY, to.me.read),
        Route(POST, "/api/check", Access.ANY, to.check.check),
        Route(GET, "/api/usage", Access.ANY, to.usage.read),
        Route(POST, "/api/user/key", Access.MANAGE, to.user_keys.create),
        Route(GET, "/api/user/key/{email}", Access.ANY, to.user_keys.read),
        Route(DELETE, "/api/user/key/{email}", Access.MANAGE, to.user_keys.revoke),
        Route(GET, "/api/user/usage/{email}", Access.ANY, to.user_keys.usage),
        Route(POST, "/v1/chat/completions", Access.INFERENCE, to.inference.json_endpoint),
        Route(POST, "/v1/completions", Access.INFERENCE, to.inference.json_endpoint),
        Route(POST, "/v1/embeddings", Access.INFERENCE, to.inference.json_endpoint),
        Route(POST, "/v1/responses", Access.INFERENCE, to.inference.json_endpoint),
        Route(GET, "/v1/models", Access.INFERENCE, to.inference.models),
        Route(GET, "/v1/models/{model...}", Access.INFERENCE, to.inference.model),
        Route(POST, "/v1/engines/{model}/{endpoint...}", Access.INFERENCE, to.inference.engine),
        Route(POST, "/engines/{model}/{endpoint...}", Access.INFERENCE, to.inference.engine),
        Route(POST, "/openai/deployments/{model}/{endpoint...}", Access.INFERENCE, to.inference.engine),
        Route(ANY_METHOD, "/v1/{rest...}", Access.INFERENCE, to.inference.pass_through),
    )


class Match(NamedTuple):
    """``route`` is None where the path has rows, but none for the method; ``rows`` are those of the path."""

    route: Route | None
    rows: tuple[Route, ...]
    params: Mapping[str, str]

    @property
    def access(self) -> Access:
        return (self.route or self.rows[0]).access

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for row in self.rows for method in row.methods))


class Router:
    """Finds the row for a path and a method."""

    def __init__(self, table: Sequence[Route]) -> None:
        rows: dict[str, tuple[Route, ...]] = {}
        for route in table:
            rows[route.pattern] = (*rows.get(route.pattern, ()), route)
        self._exact = {
            (pattern, method): Match(_with_method(found, method), found, {})
            for pattern, found in rows.items()
            if "{" not in pattern
            for method in ("", *(method for row in found for method in row.methods))
        }
        self._patterns = [(_compiled(pattern), found) for pattern, found in rows.items() if "{" in pattern]

    def find(self, path: str, method: str) -> Match | None:
        match = self._exact.get((path, method)) or self._exact.get((path, ""))
        if match is not None:
            return match
        for pattern, rows in self._patterns:
            if found := pattern.fullmatch(path):
                params = {name: unquote(value) for name, value in found.groupdict().items()}
                return Match(_with_method(rows, method), rows, params)
        return None


def _with_method(rows: tuple[Route, ...], method: str) -> Route | None:
    return next((row for row in rows if method in row.methods), None)


def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", pattern)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))
