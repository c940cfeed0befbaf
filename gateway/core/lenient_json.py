"""Decodes JSON as most clients of an upstream would: also with ``NaN``, a byte order mark, or half of a surrogate pair. Pure.

The strict decoder is tried first, so that ordinary documents cost nothing more.
"""

import json
from typing import Any

import msgspec

MAX_LENIENT_BYTES = 8 * 1024 * 1024
"""How large a document may be that only the lenient decoder can read: it needs ten times as long as the strict one."""
_MARK = b"\xef\xbb\xbf"


def decode(data: bytes) -> Any:
    """Returns the value. Raises ValueError where ``data`` is not JSON, or is odd and larger than ``MAX_LENIENT_BYTES``."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_odd(data)


def encode(value: Any) -> bytes:
    """Returns a value of ``decode`` as JSON, with ``NaN`` and half surrogate pairs where they were."""
    try:
        return msgspec.json.encode(value) if not _has_odd_numbers(value) else json.dumps(value).encode()
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError, RecursionError):
        return json.dumps(value).encode()


def _decode_odd(data: bytes) -> Any:
    if len(data) > MAX_LENIENT_BYTES:
        raise ValueError("the document is not JSON")
    try:
        return json.loads(data.removeprefix(_MARK).decode("utf-8", "surrogatepass"))
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("the document is not JSON") from error


def _has_odd_numbers(value: Any) -> bool:
    """Returns whether a number is in the value that JSON cannot spell: the strict encoder would write null."""
    if isinstance(value, float):
        return value - value != 0
    if isinstance(value, dict):
        return any(map(_has_odd_numbers, value.values()))
    return isinstance(value, list) and any(map(_has_odd_numbers, value))
