"""The page that shows the API: it has everything that the description has, and nothing on it runs or is fetched."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from gateway.http.openapi.render import content_security_policy, render_page
from tests.support.gateway import ROOT

DESCRIPTION: dict[str, Any] = json.loads((ROOT / "gateway/http/openapi/openapi.json").read_text())
MARKUP = "<script>alert('`<b>`')</script>"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DESCRIPTION["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield method.upper(), path, operation


def describe(
    schema: dict[str, Any], components: dict[str, Any] | None = None, text: str = "A text.", **operation: Any
) -> dict[str, Any]:
    """A description of one operation, ``GET /things``, that answers with this schema."""
    response = {"description": text, "content": {"application/json": {"schema": schema}}}
    things = {
        "operationId": "getThings", "tags": ["Things"], "summary": text, "description": text, "security": [],
        "responses": {"200": response}, **operation,
    }  # fmt: skip
    return {
        "info": {"title": "An API", "version": "1.0", "description": text},
        "tags": [{"name": "Things", "description": text}],
        "paths": {"/things": {"get": things}},
        "components": components or {},
    }


def shown_type(schema: dict[str, Any], components: dict[str, Any] | None = None) -> str:
    """The type that the page shows for a required field with this schema."""
    page = render_page(describe({"required": ["it"], "properties": {"it": schema}}, components), "").decode()
    (found,) = re.findall(r"<dt><code>it</code> <i>(.*?)</i>", page)
    return unescape(found)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(DESCRIPTION, "b{}").decode()


def test_the_page_shows_every_operation(page: str) -> None:
    for method, path, operation in operations():
        assert f'<article id="{operation["operationId"]}">' in page
        assert f"http://127.0.0.1:8000{path}" in page
        assert f"</b> {path}</a>" in page
        assert f'<b class="{method.lower()}">{method}</b>' in page
    for name in ("expires_in", "max_parallel", "per_page", "last_used_from", "keyPrefix"):
        assert f"<code>{name}</code>" in page


def test_curl_commands_send_the_first_example(page: str) -> None:
    commands = [unescape(command) for command in re.findall(r"<pre class=curl>(.*?)</pre>", page, re.DOTALL)]
    assert len(commands) == len(list(operations()))
    assert (
        """curl -X POST http://127.0.0.1:8000/api/tokens \\
  -H 'Authorization: Bearer YOUR_KEY' \\
  -H 'Content-Type: application/json' \\
  -d '{"name":"my-application"}'"""
        in commands
    )
    assert "curl http://127.0.0.1:8000/healthz" in commands


def test_a_quote_in_an_example_does_not_end_the_argument_of_the_shell() -> None:
    media = {"schema": {"type": "object"}, "examples": {"one": {"summary": "One", "value": {"name": "Ann's"}}}}
    page = render_page(describe({}, requestBody={"content": {"application/json": media}}), "").decode()
    assert """-d '{"name":"Ann'\\''s"}'""" in unescape(page)


def test_public_operations_say_so() -> None:
    note = "Public: no credential is looked at."
    assert note in render_page(describe({}), "").decode()
    assert note not in render_page(describe({}, security=[{"bearer": []}]), "").decode()


def test_nothing_on_the_page_runs_or_is_fetched(page: str) -> None:
    assert "<script" not in page
    assert not re.findall(r"""\s(?:src|on\w+)=|url\(|@import|<(?:img|iframe|link|object|embed|form)""", page)
    assert set(re.findall(r'href="([^"#][^"]*)"', page)) == {"openapi.json"}


def test_markup_in_the_description_is_escaped_everywhere() -> None:
    field = {"type": "string", "description": MARKUP}
    parameter = {"name": MARKUP, "in": MARKUP, "description": MARKUP, "schema": {"enum": [MARKUP]}}
    schema = {"properties": {MARKUP: field, "fixed": {"const": MARKUP}}}
    described = describe(schema, text=MARKUP, parameters=[parameter])
    described["info"].update(title=MARKUP, version=MARKUP)
    page = render_page(described, "").decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


def test_backticks_become_code() -> None:
    assert "<p>See <code>a&lt;b</code> first.</p>" in render_page(describe({}, text="See `a<b` first."), "").decode()


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "minLength": 1, "maxLength": 200}, "string of 1 to 200 characters"),
        ({"type": "string", "maxLength": 9}, "string of at most 9 characters"),
        ({"type": "string", "minLength": 1}, "string, 1 or more characters"),
        ({"type": "string", "format": "date-time"}, "time"),
        ({"type": ["string", "null"]}, "string or null"),
        ({"type": "integer", "minimum": 1, "maximum": 5}, "whole number, 1 to 5"),
        ({"type": "number", "minimum": 0}, "number, 0 or more"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"enum": ["a", "b"]}, "a | b"),
        ({"const": True}, "always true"),
        ({"const": "x"}, "always x"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({}, "anything"),
    ],
)
def test_types_are_phrases(schema: dict[str, Any], shown: str) -> None:
    assert shown_type(schema) == shown


def test_references_are_followed() -> None:
    components = {"schemas": {"Alias": {"$ref": "#/components/schemas/Name"}, "Name": {"type": "string"}}}
    assert shown_type({"$ref": "#/components/schemas/Alias"}, components) == "string"


def test_fields_within_fields_are_folded() -> None:
    inner = {"properties": {"inner": {"type": "string"}}}
    for schema in (inner, {"type": "array", "items": inner}):
        page = render_page(describe({"properties": {"outer": schema}}), "").decode()
        assert "<details><summary>fields</summary><dl><dt><code>inner</code> <i>string, optional</i></dt>" in page


def test_one_of_several_objects_shows_the_fields_of_each() -> None:
    schema = {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}, {"type": "null"}]}
    page = render_page(describe(schema), "").decode()
    assert re.search(r"<code>a</code>.*<p>or</p>.*<code>b</code>", page)
    assert page.count("<p>or</p>") == 1


def test_the_policy_allows_the_style_sheet_by_its_hash() -> None:
    digest = base64.b64encode(hashlib.sha256(b"b{}").digest()).decode()
    policy = content_security_policy("b{}")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
