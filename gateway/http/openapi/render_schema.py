"""Schemas of an OpenAPI description as HTML: each field with its type, its rule and what it means. Pure."""

import re
from collections.abc import Mapping
from html import escape
from typing import Any

Object = Mapping[str, Any]

_CODE = re.compile(r"`([^`]+)`")


def inline(text: str) -> str:
    """A text with `code` in it."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def resolved(description: Object, item: Object) -> Object:
    """What a ``$ref`` within the description leads to; anything else is itself."""
    found = item
    while "$ref" in found:
        target: Any = description
        for step in found["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        found = target
    return found


def fields(description: Object, schema: Object) -> str:
    """A list of an object's fields; of one of several objects, each; nothing for what has no fields."""
    found = resolved(description, schema)
    if "oneOf" in found:
        return "<p>or</p>".join(filter(None, (fields(description, one) for one in found["oneOf"])))
    rows = "".join(
        _row(description, name, field, name in found.get("required", ()))
        for name, field in found.get("properties", {}).items()
    )
    return f"<dl>{rows}</dl>" if rows else ""


def _row(description: Object, name: str, field: Object, is_required: bool) -> str:
    found = resolved(description, field)
    text = inline(found.get("description", ""))
    inner = fields(description, _items(description, found))
    mark = "" if is_required else ", optional"
    return (
        f"<dt><code>{escape(name)}</code> <i>{rule(description, found)}{mark}</i></dt>"
        f"<dd>{text}{f'<details><summary>fields</summary>{inner}</details>' if inner else ''}</dd>"
    )


def _items(description: Object, schema: Object) -> Object:
    """What a list is made of; anything else is itself."""
    found = resolved(description, schema)
    return resolved(description, found["items"]) if "items" in found else found


def rule(description: Object, schema: Object) -> str:
    """The type and its bounds, as a phrase: ``text of 1 to 200 characters or null``."""
    found = resolved(description, schema)
    if "const" in found:
        return f"always {escape(str(found['const']).lower() if isinstance(found['const'], bool) else found['const'])}"
    if "enum" in found:
        return escape(" | ".join(map(str, found["enum"])))
    if "oneOf" in found:
        return " or ".join(rule(description, one) for one in found["oneOf"])
    kinds = found.get("type", "anything")
    names = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_named(description, name, found) for name in names)


def _named(description: Object, kind: str, schema: Object) -> str:
    if kind == "array":
        return f"list of {rule(description, schema['items'])}"
    if kind == "string":
        name = "time" if schema.get("format") == "date-time" else "text"
        return name + _bounds(schema, "minLength", "maxLength", " characters")
    if kind in ("integer", "number"):
        return f"{'whole ' if kind == 'integer' else ''}number{_bounds(schema, 'minimum', 'maximum', '')}"
    return kind


def _bounds(schema: Object, low: str, high: str, unit: str) -> str:
    first, last = schema.get(low), schema.get(high)
    if first is not None and last is not None:
        return f" of {first} to {last}{unit}" if unit else f", {first} to {last}"
    if last is not None:
        return f" of at most {last}{unit}"
    return f", {first} or more{unit}" if first is not None else ""
