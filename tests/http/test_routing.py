"""How paths and methods find their route, and what is known where they do not."""

from typing import Any

import pytest

from gateway.auth.roles import Access
from gateway.core.errors import MethodNotAllowed, NotFound
from gateway.http.context import Route
from gateway.http.routing import Router, Routing
from tests.support.connection import context as make_context


async def endpoint(_ctx: Any) -> Any: ...


def row(method: str, pattern: str, access: Access = Access.ANY) -> Route:
    return Route((method,), pattern, access, endpoint)


ROUTES = (
    row("GET", "/a", Access.PUBLIC),
    row("POST", "/a", Access.MANAGE),
    row("GET", "/a/{id}"),
    row("DELETE", "/a/{id}", Access.ADMIN_OR_LOOPBACK),
    row("GET", "/files/{rest...}", Access.INFERENCE),
)
ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "route", "params"),
    [
        ("GET", "/a", ROUTES[0], {}),
        ("POST", "/a", ROUTES[1], {}),
        ("GET", "/a/x%20y", ROUTES[2], {"id": "x y"}),
        ("DELETE", "/a/1", ROUTES[3], {"id": "1"}),
        ("GET", "/files/a/b/c", ROUTES[4], {"rest": "a/b/c"}),
    ],
)
def test_a_path_and_a_method_find_their_row(method: str, path: str, route: Route, params: dict[str, str]) -> None:
    match = ROUTER.find(path, method)
    assert match is not None
    assert (match.route, match.params, match.access) == (route, params, route.access)


@pytest.mark.parametrize("path", ["/", "/b", "/a/", "/a/b/c", "/files/", "/files", "a"])
def test_unknown_paths_find_nothing(path: str) -> None:
    assert ROUTER.find(path, "GET") is None


@pytest.mark.parametrize(("path", "methods"), [("/a", ("GET", "POST")), ("/a/1", ("GET", "DELETE"))])
def test_a_known_path_with_another_method_knows_its_methods(path: str, methods: tuple[str, ...]) -> None:
    match = ROUTER.find(path, "PUT")
    assert match is not None
    assert (match.route, match.methods) == (None, methods)


PASSING = Router(
    (row("GET", "/v1/models"), row("GET", "/v1/models/{id}"), *(row(m, "/v1/{rest...}") for m in ("GET", "PUT")))
)


@pytest.mark.parametrize(("method", "path", "rest"), [
    ("PUT", "/v1/models", "models"), ("PUT", "/v1/models/a", "models/a"), ("GET", "/v1/models/a/b", "models/a/b"),
])  # fmt: skip
def test_the_rest_takes_methods_that_others_do_not_have(method: str, path: str, rest: str) -> None:
    match = PASSING.find(path, method)
    assert match is not None
    assert match.route is not None
    assert (match.route.pattern, match.params) == ("/v1/{rest...}", {"rest": rest})


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a"])
def test_a_method_that_not_even_the_rest_has(path: str) -> None:
    match = PASSING.find(path, "OPTIONS")
    assert match is not None
    assert (match.route, match.methods) == (None, ("GET", "PUT"))
    found = PASSING.find(path, "GET")
    assert found is not None
    assert found.route is not None
    assert found.route.pattern != "/v1/{rest...}"


async def test_the_context_learns_its_route() -> None:
    ctx = make_context(raw_path="/a/7")
    Routing(ROUTER).before(ctx)
    assert (ctx.route, dict(ctx.params), ctx.access, ctx.routing_error) == (ROUTES[2], {"id": "7"}, Access.ANY, None)


async def test_an_unknown_path_is_told_later_and_asks_for_a_credential() -> None:
    ctx = make_context(raw_path="/nowhere")
    Routing(ROUTER).before(ctx)
    assert (ctx.route, ctx.access) == (None, Access.ANY)
    assert isinstance(ctx.routing_error, NotFound)


async def test_an_odd_path_is_not_found_even_where_a_pattern_fits() -> None:
    ctx = make_context(raw_path="/files/../a")
    Routing(ROUTER).before(ctx)
    assert ctx.route is None
    assert "dot segment" in str(ctx.routing_error)


async def test_another_method_needs_what_the_path_needs() -> None:
    ctx = make_context(method="PUT", raw_path="/a")
    Routing(ROUTER).before(ctx)
    assert ctx.access is Access.PUBLIC
    assert isinstance(ctx.routing_error, MethodNotAllowed)
