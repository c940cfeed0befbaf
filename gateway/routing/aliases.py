"""Aliases of models: the provider's name in requests, and the client's name in responses. Pure."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeAlias

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject, parse_object, set_field
from gateway.providers.base import EVENT_STREAM, JSON, ProviderRequest, ProviderResponse

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
_PLACES = ("response", "message")

NameFor: TypeAlias = Callable[[str], str | None]
"""Returns the name that a client is shown for a provider's name of a model; None to leave it."""


def rename_request(request: ProviderRequest, model: str) -> ProviderRequest:
    """Returns the request with the provider's name for the model. JSON bodies and forms name one.

    Raises what ``parse_object`` raises, for a request without ``fields``.
    """
    if isinstance(request.body, FormBody):
        form = request.body.with_model(model)
        headers = {**request.headers, **form.headers}
        return msgspec.structs.replace(request, body=form, headers=headers, fields=form.fields, model=model)
    if not isinstance(request.body, bytes):
        return msgspec.structs.replace(request, body=None, fields=None, model=model)
    given = request.fields if isinstance(request.fields, JsonObject) else parse_object(request.body)
    fields = given.copy_with("model", model)
    return msgspec.structs.replace(request, body=fields.body, fields=fields, model=model)


def rename_response(response: ProviderResponse, name_for: NameFor) -> ProviderResponse:
    """Returns the response with the names that clients use, in a JSON document and in each event of a stream."""
    body = response.body
    if isinstance(body, bytes):
        response.body = _rename_json(body, name_for)
    elif response.content_type.startswith(EVENT_STREAM):
        response.body = _rename_events(body, name_for)
    elif response.content_type.startswith(JSON):
        response.headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        response.body = _rename_chunks(body, name_for)
    return response


async def _rename_events(blocks: AsyncIterator[bytes], name_for: NameFor) -> AsyncIterator[bytes]:
    try:
        async for block in blocks:
            if b'"model"' in block:
                yield b"".join(_rename_event(event, name_for) for event in sse.split_events(block))
            else:
                yield block
    finally:
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()


async def _rename_chunks(chunks: AsyncIterator[bytes], name_for: NameFor) -> AsyncIterator[bytes]:
    """Renames in a document that comes in chunks. One that is larger than ``MAX_DOCUMENT_BYTES`` passes as it is."""
    kept: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            kept.append(chunk)
            if size > MAX_DOCUMENT_BYTES:
                yield b"".join(kept)
                kept.clear()
        if kept:
            document = b"".join(kept)
            yield _rename_json(document, name_for) if size <= MAX_DOCUMENT_BYTES else document
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


def _rename_event(event: bytes, name_for: NameFor) -> bytes:
    """Returns the event with its data in one line, or in as many as the data have; all its other lines stay."""
    data = sse.event_data(event) if b'"model"' in event else None
    if data is None or (renamed := _rename_json(data, name_for)) == data:
        return event
    lines: list[bytes] = []
    is_written = False
    for line in event.splitlines(keepends=True):
        if not line.startswith(b"data:"):
            lines.append(line)
        elif not is_written:
            is_written = True
            line_end = line[len(line.rstrip(b"\r\n")) :]
            lines += [b"data: " + part + line_end for part in renamed.splitlines()]
    return b"".join(lines)


def _rename_json(body: bytes, name_for: NameFor) -> bytes:
    """Sets ``model``, at the top level, or in the ``response`` or ``message`` of an event."""
    if b'"model"' not in body:
        return body
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _rename_odd_json(body, name_for)
    if "model" in fields:
        name = _new_name(bytes(fields["model"]), name_for)
        return body if name is None else set_field(body, "model", name)
    for place in _PLACES:
        if place in fields and (renamed := _rename_json(raw := bytes(fields[place]), name_for)) != raw:
            return set_field(body, place, msgspec.Raw(renamed))
    return body


def _new_name(raw: bytes, name_for: NameFor) -> str | None:
    try:
        name = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    return name_for(name) if isinstance(name, str) else None


def _rename_odd_json(body: bytes, name_for: NameFor) -> bytes:
    """Renames in a document with ``NaN``, a byte order mark, or half a surrogate pair; it is encoded again as a whole."""
    try:
        content = lenient_json.decode(body)
    except ValueError:
        return body
    if not isinstance(content, dict):
        return body
    for place in (content, *(content.get(name) for name in _PLACES)):
        if isinstance(place, dict) and isinstance(place.get("model"), str):
            place["model"] = name_for(place["model"]) or place["model"]
            return lenient_json.encode(content)
    return body
