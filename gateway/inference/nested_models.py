"""Finds models that are named inside a field of a request. Pure.

Some upstreams look for a model at other places than the top level: in a tool that makes pictures, in the options of a router,
in lists of fallbacks.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.core.errors import BadRequest

MAX_BYTES = 1024 * 1024
"""How large a field may be that has to be decoded because it seems to name a model."""
_ENDINGS = ("model", "models", "modelid", "modelids", "modelname", "modelnames", "modellist", "modelgroup")
_DATA = frozenset(
    {
        "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired", "dependencies",
        "default", "const", "enum", "example", "examples", "input_examples",
    }
)  # fmt: skip
"""Keys of a JSON schema, or of a tool, below which every key is the client's own."""
_KEY = re.compile(rb'(?:models?[_-]?(?:ids?|names?|list|group)?|fallback[a-z_-]*)"\s*:')
_ESCAPED_LETTER = re.compile(rb"\\u(?:00[4-7]|017f|212a)")
_OTHER_S_AND_K = ("\u017f".encode(), "\u212a".encode())
"""Characters that a reader which ignores case takes for s and k."""


class _Members(list[tuple[str, Any]]):
    """Holds the members of an object. A key that appears twice is there twice."""


def find(name: str, raw: msgspec.Raw) -> Iterator[tuple[str, str | None]]:
    """Yields each key that names models, and the model; None in place of anything but one string.

    ``raw`` is the value of the field ``name``, at the top level of a body. Raises BadRequest for a value that seems to name a
    model and is too large, or too deep, to be looked at.
    """
    value = bytes(raw) if memoryview(raw).nbytes <= MAX_BYTES else b""
    if _is_model_key(name):
        yield from _named(name, _decode(name, value)) if value else [(name, None)]
    elif bytes(memoryview(raw)[:1]) in (b"{", b"[") and _seems_to_name_models(value or bytes(raw)):
        if not value:
            raise BadRequest(
                f"`{name[:100]}` is too long to be checked for models.", code="invalid_type", param=name[:100]
            )
        yield from _walk(_decode(name, value))


def _seems_to_name_models(raw: bytes) -> bool:
    """Looks for keys without decoding anything. Within a string a quotation mark has a backslash, so text looks like no key."""
    lower = raw.lower()
    return (
        ((b"model" in lower or b"fallback" in lower) and _KEY.search(lower) is not None)
        or (b"\\u" in lower and _ESCAPED_LETTER.search(lower) is not None)
        or any(char in raw for char in _OTHER_S_AND_K)
    )


def _walk(value: Any) -> Iterator[tuple[str, str | None]]:
    todo = [value]
    while todo:
        value = todo.pop()
        if isinstance(value, _Members):
            for key, inner in value:
                if key in _DATA:
                    continue
                if _is_model_key(key):
                    yield from _named(key, inner)
                else:
                    todo.append(inner)
        elif isinstance(value, list):
            todo.extend(value)


def _named(key: str, value: Any) -> Iterator[tuple[str, str | None]]:
    """A switch such as ``allow_fallbacks: false`` names nothing."""
    if isinstance(value, str):
        yield key[:100], value
    elif isinstance(value, list):
        yield key[:100], None


def _is_model_key(key: str) -> bool:
    folded = key.casefold().replace("_", "").replace("-", "")
    return folded.endswith(_ENDINGS) or "fallback" in folded


def _decode(name: str, raw: bytes) -> Any:
    """Returns the value with all members of its objects. Numbers are 0: they name nothing, and could be endless."""
    try:
        return json.loads(raw, object_pairs_hook=_Members, parse_int=_zero, parse_float=_zero)
    except (ValueError, RecursionError):
        reason = f"`{name[:100]}` cannot be checked for models: it is invalid, or nested too deeply."
        raise BadRequest(reason, code="invalid_json", param=name[:100]) from None


def _zero(_number: str) -> int:
    return 0
