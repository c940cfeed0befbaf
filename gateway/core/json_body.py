"""Reads JSON request bodies: from bytes to an object whose top level was checked.

Only the top level is decoded. A value stays the client's own bytes until it is asked for, so that a body of many small values
does not become a hundred times its size in memory. What is sent upstream are the bytes that were checked; where the model's
name has to change, every other field is copied byte for byte.
"""

import codecs
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.core.errors import BadRequest

MAX_MODEL_LENGTH = 256
MAX_KEYS = 1000
"""How many keys the top level of a body may have: each costs some hundred bytes, a hundred times what it takes in the body."""
MAX_ELEMENTS = 4_000_000
"""How many commas and opening brackets a body may have, about. The decoder needs ten times as long for them as for text."""
_SLICE = 64 * 1024
_SLICES_FOR_ONE_COUNTED = 8
_MAX_MODEL_BYTES = 6 * MAX_MODEL_LENGTH + 2
_MAX_LITERAL_BYTES = 5
_LARGE = 64 * 1024
"""From this many bytes on a body can have so many keys that they are counted while they are decoded."""
_UTF8_SLICE = 1024 * 1024
_KEY_AND_COLON = re.compile(rb'\s*"((?:[^"\\]|\\.)*)"\s*:\s*')
_COMMA_OR_BRACE = re.compile(rb"\s*[,}]")
_FIELDS_THAT_DECIDE = ("model", "stream")


class JsonObject(Mapping[str, Any]):
    """Holds the top-level fields of a body and decodes each value when it is asked for.

    ``body`` is the object as bytes, ``raw_values`` has each value as the client wrote it.
    """

    __slots__ = ("body", "raw_values")

    def __init__(self, body: bytes, raw_values: dict[str, msgspec.Raw]) -> None:
        self.body = body
        self.raw_values = raw_values

    def __getitem__(self, name: str) -> Any:
        """Returns the decoded value. Raises KeyError where the field is absent, BadRequest where its value is invalid JSON."""
        return _decode(self.raw_values[name])

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the decoded value, ``default`` where the field is absent. Raises BadRequest where the value is invalid JSON."""
        raw = self.raw_values.get(name)
        return default if raw is None else _decode(raw)

    def get_short(self, name: str, max_bytes: int) -> Any:
        """Returns the decoded value, None where the field is absent. Its size is looked at before it is decoded.

        Raises BadRequest where the value has more than ``max_bytes`` bytes, or is invalid JSON.
        """
        raw = self.raw_values.get(name)
        if raw is None:
            return None
        if memoryview(raw).nbytes > max_bytes:
            raise BadRequest(f"`{name}` is too long.", code="invalid_type", param=name)
        return _decode(raw)

    def __contains__(self, name: object) -> bool:
        return name in self.raw_values

    def copy_with(self, name: str, value: Any) -> "JsonObject":
        """Returns a copy with one field set. All other fields stay byte for byte as they are."""
        encoded = msgspec.Raw(msgspec.json.encode(value))
        fields = {**self.raw_values, name: encoded}
        if name in self.raw_values or not self.raw_values:
            return JsonObject(msgspec.json.encode(fields), fields)
        # A new field goes behind the last one: no field has to be copied one by one.
        without_brace = self.body.rstrip()[:-1]
        return JsonObject(b"%s,%s:%s}" % (without_brace, msgspec.json.encode(name), bytes(encoded)), fields)

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw_values)

    def __len__(self) -> int:
        return len(self.raw_values)


def parse_object(body: bytes) -> JsonObject:
    """Returns the JSON object that ``body`` spells.

    Raises BadRequest for anything else, for more than ``MAX_KEYS`` keys, and for a key that appears twice or that another reader
    would take for ``model`` or ``stream``: what was checked here must be what the upstream reads.
    """
    try:
        raw = _decode_top_level(body)
        if not body.isascii():
            _check_utf8(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _invalid_json(_reason(error)) from None
    except RecursionError:
        raise _invalid_json("it is nested too deeply") from None
    _refuse_duplicate_keys(body, raw)
    for name in raw:
        if name not in _FIELDS_THAT_DECIDE and name.casefold() in _FIELDS_THAT_DECIDE:
            # Go's reader takes "Model" for "model", and the last one wins.
            raise BadRequest(f"The key {name!r} must be written in lower case.", code="duplicate_key", param=name)
    return JsonObject(body, raw)


def read_model(fields: JsonObject) -> str:
    """Returns the name of the model.

    Raises BadRequest where it is absent, no string, longer than 256 characters, or a name that no model has.
    """
    raw = fields.raw_values.get("model")
    model = None if raw is None else _decode_short(raw, _MAX_MODEL_BYTES)
    if model is None or model == "":
        raise BadRequest("you must provide a model parameter", code="missing_required_parameter", param="model")
    if not isinstance(model, str) or len(model) > MAX_MODEL_LENGTH:
        rule = f"`model` must be a string of at most {MAX_MODEL_LENGTH} characters."
        raise BadRequest(rule, code="invalid_type", param="model")
    if not is_model_name(model):
        rule = "`model` must be one name: printable characters, no comma, and no blank at its beginning or end."
        raise BadRequest(rule, code="invalid_value", param="model")
    return model


def names_model(fields: JsonObject) -> bool:
    """Returns whether ``model`` is there. Clients that leave it out may send null instead."""
    raw = fields.raw_values.get("model")
    return raw is not None and bytes(memoryview(raw)[:5]) != b"null"


def is_model_name(name: str) -> bool:
    """Returns whether a string can be the name of one model. Some upstreams take ``a,b`` for two models and ask both."""
    return "," not in name and name.isprintable() and name.strip() == name


def read_stream(fields: JsonObject) -> bool:
    """Returns whether a stream is asked for. Raises BadRequest for anything but true, false and null."""
    raw = fields.raw_values.get("stream")
    stream = None if raw is None else _decode_short(raw, _MAX_LITERAL_BYTES)
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true, false or null.", code="invalid_type", param="stream")
    return stream is True


def read_model_and_stream(fields: JsonObject) -> tuple[str, bool]:
    """Returns both of the fields that decide who answers, and how. Raises BadRequest as ``read_stream`` and ``read_model`` do."""
    stream = read_stream(fields)
    return read_model(fields), stream


def set_field(body: bytes, name: str, value: Any) -> bytes:
    """Returns the JSON object ``body`` with one top-level field set; all other values stay byte for byte as they are.

    Raises msgspec.DecodeError where ``body`` is not a JSON object.
    """
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields[name] = value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)


class _Key(str):
    """Is a key of a large body. Its own type makes the decoder call back for each key."""

    __slots__ = ()


def _decode_top_level(body: bytes) -> dict[str, msgspec.Raw]:
    """Returns the members. Raises BadRequest for too many of them, before all of them are in memory."""
    if len(body) < _LARGE:
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if len(fields) > MAX_KEYS:
            raise _too_many_keys()
        return fields
    _refuse_too_many_elements(body)
    count = 0

    def read_key(_type: type, name: str) -> _Key:
        nonlocal count
        count += 1
        if count > MAX_KEYS:
            raise _too_many_keys()
        return _Key(name)

    members = msgspec.json.decode(body, type=dict[_Key, msgspec.Raw], dec_hook=read_key)
    return {str(name): raw for name, raw in members.items()}


def _refuse_too_many_elements(body: bytes) -> None:
    """Counts in every eighth slice, from a random one on, so that nobody can put the elements elsewhere. Raises BadRequest."""
    if len(body) <= MAX_ELEMENTS:
        return
    found = 0
    step = _SLICES_FOR_ONE_COUNTED * _SLICE
    for start in range(secrets.randbelow(_SLICES_FOR_ONE_COUNTED) * _SLICE, len(body), step):
        found += sum(body.count(mark, start, start + _SLICE) for mark in (b",", b"[", b"{"))
        if found * _SLICES_FOR_ONE_COUNTED > MAX_ELEMENTS:
            raise BadRequest(f"The JSON body has more than {MAX_ELEMENTS} elements.", code="invalid_json")


def _too_many_keys() -> BadRequest:
    return BadRequest(f"The JSON body has more than {MAX_KEYS} keys at its top level.", code="invalid_json")


def _check_utf8(body: bytes) -> None:
    """Raises UnicodeDecodeError. A large body is decoded in slices: as one string it could take four times its size."""
    if len(body) <= _UTF8_SLICE:
        body.decode()
        return
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(body)
    for start in range(0, len(body), _UTF8_SLICE):
        decoder.decode(view[start : start + _UTF8_SLICE], final=start + _UTF8_SLICE >= len(body))


def _refuse_duplicate_keys(body: bytes, raw: dict[str, msgspec.Raw]) -> None:
    """Raises BadRequest where ``body`` has more members than ``raw``: of two equal keys the decoder kept the last.

    In a compact body, the common case, counting bytes is enough. The opening brace is one byte. Each member takes its value and
    at least its name's length in bytes (escapes and UTF-8 only take more), and four bytes more: two quotes, a colon, and a
    comma or the closing brace. A member that was dropped would take at least five. So if the sum is the length of the body, no
    member was dropped. If it is not, there are spaces, escapes or duplicates, and the members are walked one by one.
    """
    if len(body) < _LARGE:  # nothing is copied that is large, and no step is one in Python
        names_and_values = sum(map(len, raw)) + sum(map(len, map(bytes, raw.values())))
    else:
        names_and_values = sum(len(name) + memoryview(value).nbytes for name, value in raw.items())
    if len(body) == 1 + names_and_values + 4 * len(raw):
        return
    position = body.index(b"{") + 1
    for _ in range(len(raw)):
        key = _KEY_AND_COLON.match(body, position)
        value = bytes(raw[_decode_key(key[1])]) if key else b""
        # At the first of two equal keys lies another value than the one that was kept, or the walk ends before the brace.
        end = _COMMA_OR_BRACE.match(body, key.end() + len(value)) if key and body.startswith(value, key.end()) else None
        if end is None:
            raise _duplicate_key()
        position = end.end()
    if raw and body[position - 1 : position] != b"}":
        raise _duplicate_key()


def _decode_key(key: bytes) -> str:
    name: str = msgspec.json.decode(b'"' + key + b'"') if b"\\" in key else key.decode()
    return name


def _duplicate_key() -> BadRequest:
    return BadRequest("The JSON body has a key twice at its top level.", code="duplicate_key")


def _decode_short(raw: msgspec.Raw, max_bytes: int) -> Any:
    """Returns the value; where it has more bytes than a valid one, an object of no JSON type."""
    return _decode(raw) if memoryview(raw).nbytes <= max_bytes else _TOO_LONG


_TOO_LONG = object()


def _decode(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid_json(str(error)) from None


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, msgspec.ValidationError) and text.startswith("Expected `object`"):
        return "it must be an object"
    if text == "Input data was truncated":
        # The decoder gives the same reason for a string that ends early and for half of a surrogate pair.
        return "it ends too early, or holds half of a surrogate pair (\\ud800 to \\udfff)"
    return text


def _invalid_json(reason: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {reason}.", code="invalid_json")
