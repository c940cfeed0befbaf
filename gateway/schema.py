"""Request bodies: bytes to a checked request. What was checked is what is sent on.

A body is parsed once, whole, so that every error in it is found here; what goes upstream are the client's own bytes,
unless the model's name has to change, and then every other field is copied as it stands.
"""

from typing import Any

import msgspec

from gateway.errors import BadRequest


class InferenceRequest(msgspec.Struct, frozen=True):
    """A JSON body for an inference endpoint. ``fields`` are its top-level values, ``body`` the bytes they came from."""

    endpoint: str
    """The path below ``/v1``, for example ``chat/completions``."""
    model: str
    stream: bool
    fields: dict[str, Any]
    body: bytes


class _Field:
    """A top-level value. A class of our own, because the decoder then reports each one, duplicates included."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class BodyReader:
    """Decodes JSON objects and notices duplicate top-level keys, in which two parsers could see two different requests."""

    def __init__(self) -> None:
        self._seen = 0
        self._decoder = msgspec.json.Decoder(dict[str, _Field], dec_hook=self._see)

    def _see(self, _type: type, value: Any) -> _Field:
        self._seen += 1
        return _Field(value)

    def read(self, body: bytes) -> dict[str, Any]:
        """Raises BadRequest."""
        self._seen = 0
        try:
            found = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _not_json(_reason(error)) from None
        except RecursionError:
            raise _not_json("it is nested too deeply") from None
        if self._seen != len(found):
            raise BadRequest("The JSON body has a key twice at its top level.", code="duplicate_key")
        return {name: field.value for name, field in found.items()}


def inference_request(endpoint: str, fields: dict[str, Any], body: bytes) -> InferenceRequest:
    """Check the fields that decide where a request goes. Raises BadRequest."""
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("`stream` must be true, false or null.", code="invalid_type", param="stream")
    return InferenceRequest(endpoint, model_in(fields), stream is True, fields, body)


def model_in(fields: dict[str, Any]) -> str:
    """Raises BadRequest where no model is named."""
    model = fields.get("model")
    if model is None or model == "":
        raise BadRequest("you must provide a model parameter", code="missing_required_parameter", param="model")
    if not isinstance(model, str):
        raise BadRequest("`model` must be a text.", code="invalid_type", param="model")
    return model


def with_field(body: bytes, name: str, value: Any) -> bytes:
    """The JSON object ``body`` with one top-level field set; all other fields stay byte for byte as they are."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields[name] = msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)


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
