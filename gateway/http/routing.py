"""Finds the row of the route table for a path and a method. The table itself is in ``routes``."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from gateway.auth.roles import Access
from gateway.core.errors import MethodNotAllowed, NotFound, UpgradeRequired
from gateway.http import path_validation
from gateway.http.context import RequestContext, Route
from gateway.http.error_formats import ErrorFormat
from gateway.http.middleware.base import Middleware


class RouteMatch(NamedTuple):
    """The rows of a path. ``route`` is None where the path has rows, but none for the method."""

    route: Route | None
    rows: tuple[Route, ...]
    params: Mapping[str, str]

    @property
    def access(self) -> Access:
        """What the path requires, also for a method that it does not have."""
        return (self.route or self.rows[0]).access

    @property
    def error_format(self) -> ErrorFormat:
        """How errors are written on the path, also for a method that it does not have."""
        return (self.route or self.rows[0]).error_format

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method of the path."""
        return tuple(dict.fromkeys(method for row in self.rows for method in row.methods))


class Router:
    """Finds rows. The first pattern that fits wins; rows of one pattern differ in their methods.

    A pattern that ends in ``{rest...}`` also takes the methods that the patterns before it do not have: what the gateway itself
    does not serve goes to the upstream.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        rows: dict[str, tuple[Route, ...]] = {}
        for route in routes:
            rows[route.pattern] = (*rows.get(route.pattern, ()), route)
        self._by_path = {pattern: found for pattern, found in rows.items() if "{" not in pattern}
        self._by_path_and_method = {
            (pattern, method): RouteMatch(_with_method(found, method), found, {})
            for pattern, found in self._by_path.items()
            for method in _methods(found)
        }
        self._patterns = [
            (_compile(pattern), found, pattern.endswith("{rest...}"))
            for pattern, found in rows.items()
            if "{" in pattern
        ]

    def find(self, path: str, method: str) -> RouteMatch | None:
        """Returns None where no pattern fits the path."""
        return self._by_path_and_method.get((path, method)) or self._find_pattern(path, method)

    def _find_pattern(self, path: str, method: str) -> RouteMatch | None:
        rows, params = self._by_path.get(path, ()), None
        for pattern, more, takes_rest in self._patterns:
            if (rows and not takes_rest) or (found := pattern.fullmatch(path)) is None:
                continue
            rows += more
            params = {name: unquote(value) for name, value in found.groupdict().items()}
            if (route := _with_method(more, method)) is not None:
                return RouteMatch(route, rows, params)
        return RouteMatch(None, rows, params or {}) if rows else None


class Routing(Middleware):
    """Finds the route of a request and the parameters in its path.

    A WebSocket for which there is no route is refused as such: clients open them below other paths, too, Azure's below
    ``/openai/realtime``, and turn to plain HTTP for that refusal alone. A path that is odd or unknown gets an error. Both are
    raised behind authentication, so that strangers cannot probe for routes.
    """

    def __init__(self, router: Router) -> None:
        self._router = router

    def before(self, ctx: RequestContext) -> None:
        match = self._router.find(ctx.path, ctx.method)
        if match is not None:
            ctx.error_format = match.error_format
        if match is None or match.params:
            problem = path_validation.problem_with(ctx.path)
            if match is None or problem is not None:
                ctx.routing_error = UpgradeRequired() if ctx.asks_for_websocket else _unknown_path(ctx, problem)
                return
        ctx.route, ctx.params, ctx.access = match.route, match.params, match.access
        if match.route is None and ctx.asks_for_websocket:
            ctx.routing_error = UpgradeRequired()
        elif match.route is None:
            ctx.routing_error = MethodNotAllowed(ctx.method[:20], ctx.path, match.methods)


def _unknown_path(ctx: RequestContext, problem: str | None) -> NotFound:
    if problem:
        return NotFound(f"Invalid URL: the path {problem}.", code="unknown_url")
    return NotFound(f"Invalid URL ({ctx.method[:20]} {ctx.path[:200]})", code="unknown_url")


def _methods(rows: Sequence[Route]) -> set[str]:
    return {method for row in rows for method in row.methods}


def _with_method(rows: Sequence[Route], method: str) -> Route | None:
    return next((row for row in rows if method in row.methods), None)


def _compile(pattern: str) -> re.Pattern[str]:
    text = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", pattern)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))
