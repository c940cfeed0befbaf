"""Every route on one screen, and how a path finds its row. ``access`` has no default: it cannot be forgotten."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from aiohttp import web

from gateway.auth.access import Access
from gateway.http.call import Call
from gateway.http.routes.inference import InferenceRoutes
from gateway.http.routes.ops import OpsRoutes

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

GET = ("GET", "HEAD")
POST = ("POST",)
ANY_METHOD = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Route(NamedTuple):
    """``{name}`` in a pattern is one segment, ``{name...}`` one or more; both arrive percent-decoded."""

    methods: tuple[str, ...]
    pattern: str
    access: Access
    handler: Handler


def routes(inference: InferenceRoutes, ops: OpsRoutes) -> tuple[Route, ...]:
    """The table. The first pattern that fits wins."""
    return (
        Route(GET, "/healthz", Access.PUBLIC, ops.healthz),
        Route(GET, "/readyz", Access.PUBLIC, ops.readyz),
        Route(GET, "/metrics", Access.ADMIN_OR_LOOPBACK, ops.metrics),
        Route(POST, "/v1/chat/completions", Access.INFERENCE, inference.json_endpoint),
        Route(POST, "/v1/completions", Access.INFERENCE, inference.json_endpoint),
        Route(POST, "/v1/embeddings", Access.INFERENCE, inference.json_endpoint),
        Route(POST, "/v1/responses", Access.INFERENCE, inference.json_endpoint),
        Route(GET, "/v1/models", Access.INFERENCE, inference.models),
        Route(GET, "/v1/models/{model...}", Access.INFERENCE, inference.model),
        Route(POST, "/v1/engines/{model}/{endpoint...}", Access.INFERENCE, inference.engine),
        Route(POST, "/engines/{model}/{endpoint...}", Access.INFERENCE, inference.engine),
        Route(POST, "/openai/deployments/{model}/{endpoint...}", Access.INFERENCE, inference.engine),
        Route(ANY_METHOD, "/v1/{rest...}", Access.INFERENCE, inference.pass_through),
    )


class Match(NamedTuple):
    route: Route
    params: Mapping[str, str]


class Router:
    """Finds the row for a path; the method is looked at later, once the caller is known."""

    def __init__(self, table: Sequence[Route]) -> None:
        self._exact = {route.pattern: Match(route, {}) for route in table if "{" not in route.pattern}
        self._patterns = [(_compiled(route.pattern), route) for route in table if "{" in route.pattern]

    def find(self, path: str) -> Match | None:
        if (match := self._exact.get(path)) is not None:
            return match
        for pattern, route in self._patterns:
            if found := pattern.fullmatch(path):
                return Match(route, {name: unquote(value) for name, value in found.groupdict().items()})
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    text = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", pattern)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))
