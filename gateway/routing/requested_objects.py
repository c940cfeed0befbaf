"""Finds the ids of stored objects in the body of a request: files, earlier responses, conversations, containers ... Pure.

Names are compared as Go's JSON reader does, which ignores case, and of a name that appears twice every value counts: an upstream
may read either.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gateway.core.errors import BadRequest

_ID_FIELDS = frozenset(
    {
        "assistant_id", "batch_id", "container", "container_id", "conversation", "conversation_id", "error_file_id",
        "eval_id", "file_id", "file_ids", "input_file_id", "output_file_id", "previous_response_id", "prompt_id",
        "response_id", "run_id", "skill_id", "thread_id", "training_file", "upload_id", "validation_file",
        "vector_store_id", "vector_store_ids", "video_id",
    }
)  # fmt: skip
"""Fields whose value is an id, or a list of ids, at any depth."""
_OBJECT_FIELDS = frozenset({"container", "conversation", "prompt", "skill", "video"})
"""Fields whose value may be an object with an ``id``."""
_ITEM_FIELDS = frozenset({"input", "items"})
"""Lists whose entries may be known by their id alone."""
_CONTENT = frozenset(
    {
        "action", "arguments", "code", "content", "encrypted_content", "input", "output", "outputs", "result", "results",
        "tools",
    }
)  # fmt: skip
"""An entry that has one of these says by itself what it is, and the upstream need not look it up."""
_OPAQUE = frozenset({"metadata"})
"""What the upstream keeps for the client without reading it."""

MARKS = (b'_id"', b'_ids"', b'_file"', b'"container"', b'"conversation"', b'"id"')
"""A body without any of these, and without escapes in names, refers to nothing."""
_ID_NAMES = re.compile(f'"(?:{"|".join(sorted(_ID_FIELDS))})"'.encode())
_NAMES_AROUND_IDS = re.compile(f'"(?:{"|".join(sorted(_OBJECT_FIELDS | _ITEM_FIELDS))})"'.encode())
_ESCAPED = re.compile(rb"\\u(?:00[2-7]|017f|212a)|\xc5\xbf|\xe2\x84\xaa")
"""Spellings by which a name may avoid the marks: escapes of ASCII, and the two letters that fold to ``s`` and ``k``."""

LARGE_BODY = 65_536
"""Bytes from which on a body is searched in a thread."""
MAX_REFERENCES = 1000
MAX_BRACKETS = 200_000
MAX_COMMAS = 2_000_000
"""What a body that may refer to objects may have at most: it has to be read as a whole."""


class Reference(NamedTuple):
    """An id, and the field that it stands in."""

    field: str
    id: str
    is_needed: bool = True
    """Whether the upstream has to know the object. If not, the body has what the request needs."""


def may_refer(body: bytes) -> bool:
    """Whether the body has to be searched."""
    lowered = body.lower()
    if (b"\\u" in lowered or not body.isascii()) and _ESCAPED.search(lowered):
        return True
    if max(map(lowered.find, MARKS)) < 0:
        return False
    return bool(_ID_NAMES.search(lowered) or (b'"id"' in lowered and _NAMES_AROUND_IDS.search(lowered)))


def find_references(body: bytes) -> list[Reference]:
    """Returns every id of a stored object in a JSON body.

    Raises BadRequest for a body with too many ids or values, and for one that is no JSON.
    """
    if not may_refer(body):
        return []
    if body.count(b"{") + body.count(b"[") > MAX_BRACKETS or body.count(b",") > MAX_COMMAS:
        raise _too_large()
    try:
        read: Any = json.loads(body, object_pairs_hook=_Fields)
    except (ValueError, RecursionError):
        raise BadRequest("We could not parse the JSON body of your request.", code="invalid_json") from None
    found: list[Reference] = []
    for reference in _walk(read):
        found.append(reference)
        if len(found) > MAX_REFERENCES:
            raise _too_large()
    return found


class _Fields(list[tuple[str, Any]]):
    """The fields of a JSON object, also those whose name appears twice."""


def _walk(root: Any) -> Iterator[Reference]:
    """Visits every value without recursion: the reader allows more depth than is left of the stack."""
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, _Fields):
            waiting.extend(entry for entry in value if isinstance(entry, list))
            continue
        for key, inner in value:
            name = key.casefold()
            if name in _OPAQUE:
                continue
            yield from _in_field(name, inner)
            if isinstance(inner, list):
                waiting.append(inner)


def _in_field(name: str, value: Any) -> Iterator[Reference]:
    if isinstance(value, _Fields):
        if name in _OBJECT_FIELDS:
            yield from _ids(f"{name}.id", (inner for key, inner in value if key.casefold() == "id"))
    elif name in _ID_FIELDS:
        yield from _ids(name, value if isinstance(value, list) else (value,))
    elif name in _ITEM_FIELDS and isinstance(value, list):
        for entry in value:
            if isinstance(entry, _Fields):
                needed = _is_known_by_id(entry)
                yield from _ids(f"{name}.id", (inner for key, inner in entry if key.casefold() == "id"), needed)


def _is_known_by_id(entry: _Fields) -> bool:
    """Whether the upstream has to look up what an entry of the input says. An item_reference has nothing else."""
    if any(key.casefold() == "type" and value == "item_reference" for key, value in entry):
        return True
    return not any(value not in (None, "", []) for key, value in entry if key.casefold() in _CONTENT)


def _ids(field: str, values: Iterable[Any], is_needed: bool = True) -> Iterator[Reference]:
    return (Reference(field, value, is_needed) for value in values if isinstance(value, str) and value)


def _too_large() -> BadRequest:
    return BadRequest(
        "The body refers to stored objects, and has too many values to check them all. Send less in one request.",
        code="invalid_value",
    )
