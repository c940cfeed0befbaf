"""What is said of the API: every route is described and every description is a route, examples fit, and the page is inert."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gateway.http.openapi import render
from gateway.http.routes import Endpoints, routes
from tests.http.test_error_shape import _Nothing
from tests.support.gateway import ROOT, running_gateway
from tests.support.wire import check_error, request, talk

DESCRIPTION: dict[str, Any] = json.loads((ROOT / "gateway/http/openapi/openapi.json").read_text())
TABLE = routes(Endpoints(*[_Nothing()] * len(Endpoints._fields)))  # type: ignore[arg-type]
IN_WORDS = {
    "/v1/{rest...}", "/engines/{model}/{endpoint...}", "/v1/engines/{model}/{endpoint...}",
    "/openai/deployments/{model}/{endpoint...}",
}  # fmt: skip
"""OpenAPI has no word for a path of any length: these stand in the introduction."""


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


@pytest.fixture(scope="module")
def page() -> str:
    return render.rendered(DESCRIPTION, "b{}").decode()


def test_the_page_shows_every_operation(page: str) -> None:
    for method, path, operation in described():
        assert f'<article id="{operation["operationId"]}">' in page
        assert f"http://127.0.0.1:8000{path}" in page
        assert f"</b> {path}</a>" in page
        assert f'<b class="{method.lower()}">{method}</b>' in page
    for name in ("expires_in", "max_parallel", "per_page", "last_used_from", "keyPrefix"):
        assert f"<code>{name}</code>" in page


def test_curl_lines_are_what_they_show(page: str) -> None:
    lines = [unescape(line) for line in re.findall(r"<pre class=curl>(.*?)</pre>", page, re.DOTALL)]
    assert len(lines) == len(list(described()))
    assert (
        """curl -X POST http://127.0.0.1:8000/api/tokens \\
  -H 'Authorization: Bearer YOUR_KEY' \\
  -H 'Content-Type: application/json' \\
  -d '{"name":"my-application"}'"""
        in lines
    )


def test_nothing_on_the_page_runs_or_is_fetched(page: str) -> None:
    assert "<script" not in page
    assert not re.findall(r"""\s(?:src|on\w+)=|url\(|@import|<(?:img|iframe|link|object|embed|form)""", page)
    assert set(re.findall(r'href="([^"#][^"]*)"', page)) == {"openapi.json"}


def test_what_looks_like_markup_is_text() -> None:
    text = "<script>alert('`<b>`')</script>"
    described_by_somebody = {
        **DESCRIPTION,
        "info": {"title": text, "version": text, "description": text},
        "tags": [{"name": "Tokens", "description": text}],
    }
    shown = render.rendered(described_by_somebody, "").decode()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("path", "kind"), [("/docs", "text/html; charset=utf-8"), ("/openapi.json", "application/json")]
)
async def test_both_are_for_everybody_to_read(tmp_path: Path, path: str, kind: str) -> None:
    async with running_gateway(tmp_path, FREEGPT_API_KEY="sk-made-up-key-of-the-environment") as gateway:
        reply = await talk(gateway.port, request("GET", path))
        assert (reply.status, reply.header("Content-Type"), reply.whole) == (200, kind, True)
        head = await talk(gateway.port, request("HEAD", path))
        assert (head.status, head.body) == (200, b"")
        for method in ("POST", "PUT", "DELETE"):
            check_error(
                await talk(gateway.port, request(method, path)), 405, "invalid_request_error", "method_not_supported"
            )


async def test_the_page_is_held_to_its_own_style(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        reply = await talk(gateway.port, request("GET", "/docs"))
    style = reply.body.decode().partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style
    assert reply.header("Content-Security-Policy") == render.policy(style)
    assert "default-src 'none'" in render.policy(style)
    assert "unsafe" not in render.policy(style)
