"""Request bodies: bytes to a checked JSON object. What was checked is what is sent on.

Only the top level is taken apart. Values stay the client's own bytes until somebody asks for one, so that a body of many small
pieces does not become a hundred times its size in memory; and what goes upstream are those bytes, unless the model's name
has to change, and then every other field is copied as it stands.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.core.errors import BadRequest

MAX_MODEL_LENGTH = 256
_KEY = re.compile(rb'\s*"((?:[^"\\]|\\.)*)"\s*:\s*')
_END_OF_VALUE = re.compile(rb"\s*[,}]")
_FIELDS_THAT_DECIDE = ("model", "stream")


class JsonObject(Mapping[str, Any]):
    """The top-level fields of a body; each value is decoded when it is asked for."""

    __slots__ = ("_raw", "body")

    def __init__(self, body: bytes, raw: dict[str, msgspec.Raw]) -> None:
        self.body = body
        self._raw = raw

    def __getitem__(self, name: str) -> Any:
        """Raises KeyError, BadRequest for a value that is no JSON."""
        return _decoded(self._raw[name])

    def get(self, name: str, default: Any = None) -> Any:
        """Raises BadRequest for a value that is no JSON."""
        raw = self._raw.get(name)
        return default if raw is None else _decoded(raw)

    def __contains__(self, name: object) -> bool:
        return name in self._raw

    def raw(self, name: str) -> bytes | None:
        """A value as the client wrote it."""
        value = self._raw.get(name)
        return None if value is None else bytes(value)

    def with_value(self, name: str, value: Any) -> "JsonObject":
        """A copy with one field set; all the others stay byte for byte as they are."""
        fresh = msgspec.Raw(msgspec.json.encode(value))
        if name in self._raw:
            return JsonObject(with_field(self.body, name, fresh), {**self._raw, name: fresh})
        # Behind the last field: an object that is read has at least one, or the body is built anew.
        body = self.body.rstrip()
        if not self._raw:
            return JsonObject(with_field(body, name, fresh), {name: fresh})
        added = b",%s:%s}" % (msgspec.json.encode(name), bytes(fresh))
        return JsonObject(body[:-1] + added, {**self._raw, name: fresh})

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def read_object(body: bytes) -> JsonObject:
    """Raises BadRequest, also for a key that two readers could take for two different things."""
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(_reason(error)) from None
    except RecursionError:
        raise _not_json("it is nested too deeply") from None
    _refuse_twins(body, raw)
    for name in raw:
        if name not in _FIELDS_THAT_DECIDE and name.casefold() in _FIELDS_THAT_DECIDE:
            # Go's reader takes "Model" for "model", and the last one wins.
            raise BadRequest(f"The key {name!r} must be written in lower case.", code="duplicate_key", param=name)
    return JsonObject(body, raw)


def model_in(fields: Mapping[str, Any]) -> str:
    """Raises BadRequest where no model is named."""
    model = fields.get("model")
    if model is None or model == "":
        raise BadRequest("you must provide a model parameter", code="missing_required_parameter", param="model")
    if not isinstance(model, str) or len(model) > MAX_MODEL_LENGTH:
        rule = f"`model` must be a string of at most {MAX_MODEL_LENGTH} characters."
        raise BadRequest(rule, code="invalid_type", param="model")
    return model


def stream_in(fields: Mapping[str, Any]) -> bool:
    """Raises BadRequest for anything but true, false and null."""
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true, false or null.", code="invalid_type", param="stream")
    return stream is True


def with_field(body: bytes, name: str, value: Any) -> bytes:
    """The JSON object ``body`` with one top-level field set; all other fields stay byte for byte as they are."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields[name] = value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)


def _refuse_twins(body: bytes, raw: dict[str, msgspec.Raw]) -> None:
    """The decoder kept the last of two equal keys. Without it there is nothing left over; or else the keys are walked."""
    if len(body) == 1 + sum(len(name) + memoryview(value).nbytes + 4 for name, value in raw.items()):
        return  # a compact body: every byte is accounted for
    at = body.index(b"{") + 1
    for _ in range(len(raw)):
        key = _KEY.match(body, at)
        value = bytes(raw[_plain(key[1])]) if key else b""
        end = _END_OF_VALUE.match(body, key.end() + len(value)) if key and body.startswith(value, key.end()) else None
        if end is None:
            raise _twin()
        at = end.end()
    if raw and body[at - 1 : at] != b"}":
        raise _twin()


def _plain(key: bytes) -> str:
    name: str = msgspec.json.decode(b'"' + key + b'"') if b"\\" in key else key.decode()
    return name


def _twin() -> BadRequest:
    return BadRequest("The JSON body has a key twice at its top level.", code="duplicate_key")


def _decoded(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(str(error)) from None


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, msgspec.ValidationError) and text.startswith("Expected `object`"):
        return "it must be an object"
    if text == "Input data was truncated":
        # The decoder says the same of a text that ends early and of half a surrogate pair.
        return "it ends too early, or holds half of a surrogate pair (\\ud800 to \\udfff)"
    return text


def _not_json(reason: str) -> BadRequest:
    return BadRequest(f"We could not parse the JSON body of your request: {reason}.", code="invalid_json")
