"""Aliases of models: the provider's name in requests, and the client's name in responses. Pure."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeAlias

import msgspec

from gateway.core import lenient_json, sse
from gateway.core.form_data import FormBody
from gateway.core.json_body import JsonObject, parse_object, set_field
from gateway.core.upstream_errors import UpstreamRefused
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
    """Sets ``model``, at the top level, in the ``response`` or ``message`` of an event, or in each entry of a list."""
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
    return _rename_list(body, fields["data"], name_for) if "data" in fields else body


def _rename_list(body: bytes, data: msgspec.Raw, name_for: NameFor) -> bytes:
    """Renames in the entries of ``{"data": [...]}``: stored responses, chats, batches, jobs."""
    try:
        entries = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    renamed = [_rename_entry(entry, name_for) for entry in entries]
    return (
        set_field(body, "data", renamed)
        if any(new is not old for new, old in zip(renamed, entries, strict=True))
        else body
    )


def _rename_entry(entry: msgspec.Raw, name_for: NameFor) -> msgspec.Raw:
    try:
        model = msgspec.json.decode(entry, type=_Entry).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return entry
    name = _new_name(bytes(model), name_for) if bytes(model) else None
    return entry if name is None else msgspec.Raw(set_field(bytes(entry), "model", name))


class _Entry(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


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
    entries = content.get("data")
    places = [content, *(content.get(name) for name in _PLACES), *(entries if isinstance(entries, list) else ())]
    named = [place for place in places if isinstance(place, dict) and isinstance(place.get("model"), str)]
    for place in named[:1] if "model" in content else named:
        place["model"] = name_for(place["model"]) or place["model"]
    return lenient_json.encode(content) if named else body


def rename_error(error: UpstreamRefused, real: str, alias: str) -> None:
    """Puts the client's name for a model in place of the provider's in all that an upstream's error says.

    Only the whole name counts, and outside of quotation marks only one that no word of a sentence could be.
    """
    if real not in error.message and not (error.original_body and real.encode() in error.original_body):
        return
    pattern = _name_pattern(real)
    error.message = pattern.sub(lambda _found: alias.encode(), error.message.encode("utf-8", "surrogatepass")).decode(
        "utf-8", "surrogatepass"
    )
    written = msgspec.json.encode(alias)[1:-1]
    bodies = error.openai_body, error.original_body
    error.openai_body, error.original_body = (body and pattern.sub(lambda _found: written, body) for body in bodies)


def _name_pattern(name: str) -> re.Pattern[bytes]:
    escaped = re.escape(name.encode())
    quoted = rb"(?<=[`'\"])" + escaped + rb"(?=[`'\"\\])"
    if name.isalpha():
        return re.compile(quoted)
    return re.compile(quoted + rb"|(?<![\w.:/@-])" + escaped + rb"(?![\w:/@-]|\.\w)")
