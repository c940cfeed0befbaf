"""Finds the ids of objects that a response tells of: what was made, and what the upstream made with it. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core import sse

MAX_ID_LENGTH = 256
_RELATED = ("thread_id", "output_file_id", "error_file_id", "container_id")
_BEGINNINGS = (b"response.created", b"thread.created", b"chat.completion.chunk")
_ENDS = (b"response.completed", b"response.incomplete", b"response.failed")


def ids_in_object(body: bytes | msgspec.Raw) -> list[str]:
    """Returns the ids in a JSON object: its own, those of what was made with it, and of the items of a response.

    Anything else than a JSON object has none.
    """
    fields = _fields(body)
    texts: list[msgspec.Raw | None] = [fields[name] for name in ("id", *_RELATED) if name in fields]
    texts += _entries(fields.get("result_files"))
    for name in ("file", "container"):
        texts += [_fields(fields[name]).get("id")] if name in fields else []
    for item in map(_fields, _entries(fields.get("output"))):
        texts += [item.get("id"), item.get("container_id")]
    return [text for text in map(_text, texts) if text]


def ids_in_events(block: bytes) -> list[str]:
    """Returns the ids in events that begin or end a stored response; there are none in most blocks."""
    if not any(mark in block for mark in (*_BEGINNINGS, *_ENDS)):
        return []
    return [text for event in sse.split_events(block) for text in _ids_in_event(event)]


def begins_stream(block: bytes) -> bool:
    """Whether the block may have the event that tells the id of a response."""
    return any(mark in block for mark in _BEGINNINGS)


def _ids_in_event(event: bytes) -> Iterator[str]:
    for line in event.splitlines():
        if line.startswith(b"data:"):
            fields = _fields(line[5:].strip())
            yield from ids_in_object(fields["response"]) if "response" in fields else ids_in_object(line[5:].strip())


def own_entries(body: bytes, owned: frozenset[str]) -> bytes | None:
    """Returns a list, ``{"data": [...]}``, with only those of its entries whose id is ``owned``; None where it is no list."""
    fields = _fields(body)
    try:
        data = msgspec.json.decode(fields["data"], type=list[msgspec.Raw])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    kept = [(entry, text) for entry in data if (text := _text(_fields(entry).get("id"))) in owned]
    rest = {name: value for name, value in fields.items() if name in ("object", "has_more")}
    ends = {"first_id": kept[0][1], "last_id": kept[-1][1]} if kept else {"first_id": None, "last_id": None}
    return msgspec.json.encode({**rest, "data": [entry for entry, _ in kept], **ends})


def ids_in_list(body: bytes) -> list[str]:
    """Returns the ids of the entries of a list, ``{"data": [...]}``."""
    return [text for entry in _entries(_fields(body).get("data")) if (text := _text(_fields(entry).get("id")))]


def _fields(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _entries(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw]) if raw is not None else []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def _text(raw: Any) -> str | None:
    try:
        text = msgspec.json.decode(raw, type=str) if raw is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return text if text and len(text) <= MAX_ID_LENGTH else None
