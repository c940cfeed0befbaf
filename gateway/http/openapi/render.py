"""Renders an OpenAPI description as one HTML page without scripts, so that nothing on it can run. Pure: no I/O.

``description`` is the whole decoded document everywhere, because a ``$ref`` may point to any part of it. Each private function
returns a piece of HTML; every text from the description is escaped.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

import msgspec

Object = Mapping[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")
_CODE = re.compile(r"`([^`]+)`")


class _Operation(NamedTuple):
    """An operation of the description with the parameters of its path added to its own."""

    method: str
    path: str
    fields: Object


def content_security_policy(style: str) -> str:
    """Returns the ``Content-Security-Policy`` of the page: it allows this style sheet, by its hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def render_page(description: Object, style: str) -> bytes:
    """Returns the whole page in UTF-8: a table of contents, then the operations, grouped by their tags."""
    info = description["info"]
    groups = [(tag, list(_operations_with_tag(description, tag["name"]))) for tag in description["tags"]]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])} {escape(info['version'])}</title><style>{style}</style></head><body>",
        f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        _paragraphs(info["description"]),
        '<p><a href="openapi.json">openapi.json</a></p></header>',
        f"<nav>{''.join(_contents(tag, operations) for tag, operations in groups)}</nav><main>",
        *(_group(description, tag, operations) for tag, operations in groups),
        "</main></body></html>\n",
    ]
    return "\n".join(parts).encode()


def _operations_with_tag(description: Object, tag: str) -> Iterator[_Operation]:
    for path, item in description["paths"].items():
        for method in _METHODS:
            if method in item and tag in item[method]["tags"]:
                parameters = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                yield _Operation(method.upper(), path, {**item[method], "parameters": parameters})


def _contents(tag: Object, operations: list[_Operation]) -> str:
    links = "".join(
        f'<li><a href="#{escape(fields["operationId"])}">{_method(method)} {escape(path)}</a></li>'
        for method, path, fields in operations
    )
    return f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>"


def _group(description: Object, tag: Object, operations: list[_Operation]) -> str:
    articles = "".join(_article(description, operation) for operation in operations)
    return f"<section><h2>{escape(tag['name'])}</h2>{_paragraphs(tag['description'])}{articles}</section>"


def _article(description: Object, operation: _Operation) -> str:
    """Returns everything about one operation. Parts that it does not have are left out."""
    method, path, fields = operation
    parts = [
        f'<article id="{escape(fields["operationId"])}">',
        f"<h3>{_method(method)} <code>{escape(path)}</code></h3><p class=summary>{_inline(fields['summary'])}</p>",
        _paragraphs(fields.get("description", "")),
        "" if fields["security"] else "<p class=note>Public: no credential is looked at.</p>",
        _parameters(description, fields["parameters"]),
        _request_body(description, fields),
        f"<pre class=curl>{escape(_curl_command(operation))}</pre>",
        _responses(description, fields),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _method(method: str) -> str:
    return f'<b class="{method.lower()}">{method}</b>'


def _parameters(description: Object, parameters: list[Object]) -> str:
    rows = []
    for item in parameters:
        parameter = _dereference(description, item)
        text = _inline(parameter.get("description", ""))
        kind = _type(description, parameter["schema"])
        rows.append(
            f"<dt><code>{escape(parameter['name'])}</code> <i>{escape(parameter['in'])}, {kind}</i></dt><dd>{text}</dd>"
        )
    return f"<details open><summary>Parameters</summary><dl>{''.join(rows)}</dl></details>" if rows else ""


def _request_body(description: Object, operation: Object) -> str:
    media = _json_body(operation)
    if media is None:
        return ""
    examples = "".join(
        f"<figure><figcaption>{escape(example['summary'])}</figcaption>{_json(example['value'])}</figure>"
        for example in media["examples"].values()
    )
    fields = _schema_fields(description, media["schema"])
    return f"<details open><summary>Body</summary>{fields}{examples}</details>"


def _json_body(operation: Object) -> Object | None:
    media: Object | None = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return media


def _responses(description: Object, operation: Object) -> str:
    details = "".join(
        _response(description, status, _dereference(description, response))
        for status, response in operation["responses"].items()
    )
    return f"<h4>Answers</h4>{details}"


def _response(description: Object, status: str, response: Object) -> str:
    parts = []
    for media_type, media in response["content"].items():
        parts.append(f"<p><code>{escape(media_type)}</code></p>{_schema_fields(description, media['schema'])}")
        examples = media.get("examples", {"": {"value": media["example"]}} if "example" in media else {})
        parts += [_json(example["value"]) for example in examples.values()]
    css_class = "good" if status.startswith("2") else "bad"
    summary = f"<summary><b class={css_class}>{escape(status)}</b> {_inline(response['description'])}</summary>"
    return f"<details>{summary}{''.join(parts)}</details>"


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())}</pre>"


def _curl_command(operation: _Operation) -> str:
    """Returns a shell command, as text, that sends the operation's first example to a gateway on this machine."""
    method, path, fields = operation
    request_method = "" if method == "GET" else f"-X {method} "
    lines = [f"curl {request_method}http://127.0.0.1:8000{path}"]
    if fields["security"]:
        lines.append("-H 'Authorization: Bearer YOUR_KEY'")
    media = _json_body(fields)
    if media is not None:
        body = msgspec.json.encode(next(iter(media["examples"].values()))["value"]).decode()
        lines += ["-H 'Content-Type: application/json'", "-d '" + body.replace("'", "'\\''") + "'"]
    return " \\\n  ".join(lines)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part)


def _inline(text: str) -> str:
    """Returns escaped text in which `this` has become ``<code>``."""
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _dereference(description: Object, item: Object) -> Object:
    """Returns what a ``$ref`` into the description points to, or the item itself if it is no reference."""
    found = item
    while "$ref" in found:
        target: Any = description
        for step in found["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        found = target
    return found


def _schema_fields(description: Object, schema: Object) -> str:
    """Returns the list of an object's fields. A ``oneOf`` has one list for each object; other types have none."""
    found = _dereference(description, schema)
    if "oneOf" in found:
        return "<p>or</p>".join(filter(None, (_schema_fields(description, one) for one in found["oneOf"])))
    rows = "".join(
        _schema_field(description, name, field, name in found.get("required", ()))
        for name, field in found.get("properties", {}).items()
    )
    return f"<dl>{rows}</dl>" if rows else ""


def _schema_field(description: Object, name: str, field: Object, is_required: bool) -> str:
    """Returns one field: its name, its type, what it means and, folded, the fields of the object or list that it has."""
    found = _dereference(description, field)
    inner = _schema_fields(description, found.get("items", found))
    optional = "" if is_required else ", optional"
    return (
        f"<dt><code>{escape(name)}</code> <i>{_type(description, found)}{optional}</i></dt>"
        f"<dd>{_inline(found.get('description', ''))}"
        f"{f'<details><summary>fields</summary>{inner}</details>' if inner else ''}</dd>"
    )


def _type(description: Object, schema: Object) -> str:
    """Returns the type with its bounds as a phrase, such as ``string of 1 to 200 characters or null``."""
    found = _dereference(description, schema)
    if "const" in found:
        return f"always {escape(str(found['const']).lower() if isinstance(found['const'], bool) else found['const'])}"
    if "enum" in found:
        return escape(" | ".join(map(str, found["enum"])))
    if "oneOf" in found:
        return " or ".join(_type(description, one) for one in found["oneOf"])
    types = found.get("type", "anything")
    names = [types] if isinstance(types, str) else types
    return " or ".join(_type_with_bounds(description, name, found) for name in names)


def _type_with_bounds(description: Object, name: str, schema: Object) -> str:
    if name == "array":
        return f"list of {_type(description, schema['items'])}"
    if name == "string":
        is_time = schema.get("format") == "date-time"
        return ("time" if is_time else "string") + _bounds(schema, "minLength", "maxLength", " characters")
    if name in ("integer", "number"):
        return f"{'whole ' if name == 'integer' else ''}number{_bounds(schema, 'minimum', 'maximum', '')}"
    return name


def _bounds(schema: Object, low: str, high: str, unit: str) -> str:
    first, last = schema.get(low), schema.get(high)
    if first is not None and last is not None:
        return f" of {first} to {last}{unit}" if unit else f", {first} to {last}"
    if last is not None:
        return f" of at most {last}{unit}"
    return f", {first} or more{unit}" if first is not None else ""
