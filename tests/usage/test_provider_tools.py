"""Tools that the provider calls by itself."""

import json
from typing import Any

import pytest

from gateway.core.json_body import parse_object
from gateway.usage.provider_tools import has_provider_tools

PROVIDER_TOOLS: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"type": "function"}, {"type": "mcp", "server_url": "https://example.com"}]},
    {"tools": [{"google_search": {}}]},
    {"tools": [{"type": 5, "input_schema": {}}]},
    {"tools": "web_search"},
    {"tools": [{"type": "function", "description": "x" * 2**20}]},
    {"web_search_options": {}},
    {"mcp_servers": []},
    {"plugins": [{"id": "web"}]},
]


def has_tools(fields: dict[str, Any]) -> bool:
    return has_provider_tools(parse_object(json.dumps({"model": "m", **fields}).encode()).raw_values)


@pytest.mark.parametrize("fields", PROVIDER_TOOLS)
def test_tools_of_the_provider(fields: dict[str, Any]) -> None:
    assert has_tools(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": None},
        {"tools": []},
        {"web_search_options": None},
        {"tools": [{"type": "function"}, {"type": "custom"}, {"name": "f", "input_schema": {}}]},
    ],
)
def test_no_tools_are_no_tools(fields: dict[str, Any]) -> None:
    assert not has_tools(fields)
