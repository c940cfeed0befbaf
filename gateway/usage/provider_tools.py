"""Finds in a request the tools that its provider calls by itself: what they return is part of the prompt. Pure."""

from collections.abc import Mapping

import msgspec

_PROVIDER_TOOLS = frozenset({"web_search_options", "plugins", "mcp_servers"})
"""Fields that let the provider call tools by itself."""
TOOL_FIELDS = _PROVIDER_TOOLS | {"tools"}
"""A request without any of these fields has no such tools."""
_FUNCTION_TOOLS = frozenset({b'"function"', b'"custom"'})
"""Types of tools that the client runs."""
_MAX_TOOLS_BYTES = 1024 * 1024

_ABSENT = msgspec.Raw()


class _Tool(msgspec.Struct):
    type: msgspec.Raw = _ABSENT
    input_schema: msgspec.Raw = _ABSENT


_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode


def has_provider_tools(values: Mapping[str, msgspec.Raw]) -> bool:
    """Returns whether any tool is not run by the client."""
    for name in _PROVIDER_TOOLS.intersection(values):
        if bytes(values[name]) != b"null":
            return True
    raw = values.get("tools")
    if raw is None:
        return False
    if memoryview(raw).nbytes > _MAX_TOOLS_BYTES:
        return True
    try:
        tools = _decode_tools(raw) or ()
    except (msgspec.DecodeError, RecursionError):
        return True
    return not all(
        bytes(tool.type) in _FUNCTION_TOOLS or (not bytes(tool.type) and bytes(tool.input_schema)) for tool in tools
    )
