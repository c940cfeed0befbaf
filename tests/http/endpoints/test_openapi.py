"""The OpenAPI description: every route is in it and nothing else, examples fit their schemas, anybody can read it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway import __version__
from gateway.http.openapi import render
from gateway.http.routes import Endpoints, routes
from tests.http.test_error_shape import _Nothing
from tests.support.gateway import ROOT, StartGateway, running_gateway
from tests.support.reply import check_error

DESCRIPTION: dict[str, Any] = json.loads((ROOT / "gateway/http/openapi/openapi.json").read_text())
TABLE = routes(Endpoints(*[_Nothing()] * len(Endpoints._fields)))  # type: ignore[arg-type]
IN_WORDS = {
    "/v1/{rest...}", "/engines/{model}/{endpoint...}", "/v1/engines/{model}/{endpoint...}",
    "/openai/deployments/{model}/{endpoint...}", "/v1/messages", "/v1/messages/{rest...}",
    "/v1/responses/{rest...}",
}  # fmt: skip
"""OpenAPI has no word for a path of any length, and what is forwarded is described by the upstream: these stand in the
introduction."""


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DESCRIPTION["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method.upper(), path, operation


def test_every_route_is_described_and_nothing_else() -> None:
    rows = {
        (method, route.pattern.replace("...", ""))
        for route in TABLE
        if route.pattern not in IN_WORDS
        for method in route.methods
        if method != "HEAD"
    }
    assert {(method, path) for method, path, _ in described()} == rows
    introduction = DESCRIPTION["info"]["description"]
    for pattern in IN_WORDS:
        assert re.sub(r"\{(rest|endpoint)\.\.\.\}", "…", pattern) in introduction


def test_who_needs_a_token_is_said_as_it_is() -> None:
    access = {
        (method, route.pattern.replace("...", "")): route.access.value for route in TABLE for method in route.methods
    }
    for method, path, operation in described():
        is_public = access[method, path] == "public"
        assert (operation["security"] == []) == is_public, path
        assert ({} in operation["security"]) == (access[method, path] == "admin or loopback"), path
        assert ("401" in operation["responses"]) == (not is_public), path
        assert ({"query_token": []} in operation["security"]) == (
            not is_public and (path.startswith("/v1/") or (path.startswith("/api/") and method == "GET"))
        ), path


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in described()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in DESCRIPTION["tags"]}
    assert {tag for _, _, operation in described() for tag in operation["tags"]} == tags


def examples(item: Any) -> Iterator[tuple[Any, Any]]:
    """Every (schema, example) that stands anywhere below."""
    if isinstance(item, dict):
        if "schema" in item:
            if "example" in item:
                yield item["schema"], item["example"]
            yield from ((item["schema"], example["value"]) for example in item.get("examples", {}).values())
        for inner in item.values():
            yield from examples(inner)
    elif isinstance(item, list):
        for inner in item:
            yield from examples(inner)


def test_examples_fit_their_schemas() -> None:
    found = list(examples(DESCRIPTION["paths"])) + list(examples(DESCRIPTION["components"]))
    assert len(found) > 50
    for schema, example in found:
        whole = {**schema, "components": DESCRIPTION["components"]}
        jsonschema_rs.validator_for(whole).validate(example)


def test_every_operation_shows_what_is_sent_and_what_comes_back() -> None:
    for _, path, operation in described():
        for media in operation.get("requestBody", {}).get("content", {}).values():
            assert media["examples"], path
        good = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        media = good["content"].get("application/json")
        assert media is None or path == "/openapi.json" or "example" in media or "examples" in media, path


@pytest.mark.parametrize(
    ("path", "kind"), [("/docs", "text/html; charset=utf-8"), ("/openapi.json", "application/json")]
)
async def test_both_are_for_everybody_to_read(start_gateway: StartGateway, path: str, kind: str) -> None:
    gateway = await start_gateway(FREEGPT_API_KEY="sk-made-up-key-of-the-environment")
    reply = await gateway.request("GET", path)
    assert (reply.status, reply.header("Content-Type"), reply.whole) == (200, kind, True)
    head = await gateway.request("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        check_error(await gateway.request(method, path), 405, "invalid_request_error", "method_not_supported")


async def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        description = (await gateway.request("GET", "/openapi.json")).json()
        health = (await gateway.request("GET", "/healthz")).json()
    assert description["info"]["version"] == health["version"] == __version__
    assert "GATEWAY_VERSION" not in json.dumps(description)


async def test_the_page_allows_its_own_style_sheet_alone(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        reply = await gateway.request("GET", "/docs")
    style = reply.body.decode().partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style
    assert reply.header("Content-Security-Policy") == render.content_security_policy(style)
    assert "default-src 'none'" in render.content_security_policy(style)
    assert "unsafe" not in render.content_security_policy(style)
