"""The page that shows an OpenAPI description: HTML without a script, so that nothing on it can run. Pure."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import msgspec

from gateway.http.openapi import render_schema

Object = Mapping[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete")


def policy(style: str) -> str:
    """The Content-Security-Policy: only our own style, by its hash."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def rendered(description: Object, style: str) -> bytes:
    """The whole page."""
    info = description["info"]
    groups = [(tag, list(_operations(description, tag["name"]))) for tag in description["tags"]]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])} {escape(info['version'])}</title><style>{style}</style></head><body>",
        f"<header><h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        paragraphs(info["description"]),
        '<p><a href="openapi.json">openapi.json</a></p></header>',
        f"<nav>{''.join(_contents(tag, operations) for tag, operations in groups)}</nav><main>",
        *(_group(description, tag, operations) for tag, operations in groups),
        "</main></body></html>\n",
    ]
    return "\n".join(parts).encode()


def paragraphs(text: str) -> str:
    """Paragraphs with `code` in them."""
    return "".join(f"<p>{render_schema.inline(part)}</p>" for part in text.split("\n\n") if part)


def _operations(description: Object, tag: str) -> Iterator[tuple[str, str, Object]]:
    """Method, path and operation of all that bear the tag, with the parameters of their path."""
    for path, item in description["paths"].items():
        for method in _METHODS:
            if method in item and tag in item[method]["tags"]:
                parameters = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                yield method.upper(), path, {**item[method], "parameters": parameters}


def _contents(tag: Object, operations: list[tuple[str, str, Object]]) -> str:
    links = "".join(
        f'<li><a href="#{escape(operation["operationId"])}">{_method(method)} {escape(path)}</a></li>'
        for method, path, operation in operations
    )
    return f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>"


def _method(method: str) -> str:
    return f'<b class="{method.lower()}">{method}</b>'


def _group(description: Object, tag: Object, operations: list[tuple[str, str, Object]]) -> str:
    shown = "".join(_operation(description, *operation) for operation in operations)
    return f"<section><h2>{escape(tag['name'])}</h2>{paragraphs(tag['description'])}{shown}</section>"


def _operation(description: Object, method: str, path: str, operation: Object) -> str:
    parts = [
        f'<article id="{escape(operation["operationId"])}">',
        f"<h3>{_method(method)} <code>{escape(path)}</code></h3>"
        f"<p class=summary>{render_schema.inline(operation['summary'])}</p>",
        paragraphs(operation.get("description", "")),
        _access(operation),
        _parameters(description, operation["parameters"]),
        _body(description, operation),
        f"<pre class=curl>{escape(_curl(method, path, operation))}</pre>",
        _responses(description, operation),
        "</article>",
    ]
    return "\n".join(part for part in parts if part)


def _access(operation: Object) -> str:
    if not operation["security"]:
        return "<p class=note>Public: no credential is looked at.</p>"
    return ""


def _parameters(description: Object, parameters: list[Object]) -> str:
    rows = []
    for given in parameters:
        parameter = render_schema.resolved(description, given)
        text = render_schema.inline(parameter.get("description", ""))
        rule = render_schema.rule(description, parameter["schema"])
        rows.append(
            f"<dt><code>{escape(parameter['name'])}</code> <i>{escape(parameter['in'])}, {rule}</i></dt><dd>{text}</dd>"
        )
    return f"<details open><summary>Parameters</summary><dl>{''.join(rows)}</dl></details>" if rows else ""


def _body(description: Object, operation: Object) -> str:
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is None:
        return ""
    examples = "".join(
        f"<figure><figcaption>{escape(example['summary'])}</figcaption>{_json(example['value'])}</figure>"
        for example in media["examples"].values()
    )
    fields = render_schema.fields(description, media["schema"])
    return f"<details open><summary>Body</summary>{fields}{examples}</details>"


def _responses(description: Object, operation: Object) -> str:
    shown = "".join(
        _response(description, status, render_schema.resolved(description, response))
        for status, response in operation["responses"].items()
    )
    return f"<h4>Answers</h4>{shown}"


def _response(description: Object, status: str, response: Object) -> str:
    inner = []
    for kind, media in response["content"].items():
        inner.append(f"<p><code>{escape(kind)}</code></p>{render_schema.fields(description, media['schema'])}")
        examples = media.get("examples", {"": {"value": media["example"]}} if "example" in media else {})
        inner += [_json(example["value"]) for example in examples.values()]
    kind = "good" if status.startswith("2") else "bad"
    summary = f"<summary><b class={kind}>{escape(status)}</b> {render_schema.inline(response['description'])}</summary>"
    return f"<details>{summary}{''.join(inner)}</details>"


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())}</pre>"


def _curl(method: str, path: str, operation: Object) -> str:
    """A line to try. The paths of the description are relative to wherever the gateway listens."""
    words = ["curl"] if method == "GET" else ["curl", "-X", method]
    words.append(f"http://127.0.0.1:8000{path}")
    if operation["security"]:
        words.append("-H 'Authorization: Bearer YOUR_KEY'")
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is not None:
        body = msgspec.json.encode(next(iter(media["examples"].values()))["value"]).decode()
        words += ["-H 'Content-Type: application/json'", "-d '" + body.replace("'", "'\\''") + "'"]
    return " \\\n  ".join([" ".join(words[: 2 if method == "GET" else 4]), *words[2 if method == "GET" else 4 :]])
