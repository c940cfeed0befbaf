"""Computes embeddings without a model: unit vectors that depend on the text alone, so that equal texts have equal vectors."""

import base64
import hashlib
import math
import struct
from typing import Any

from gateway.core.errors import BadRequest
from gateway.core.validators import is_whole_number

DIMENSIONS = 1536
MAX_DIMENSIONS = 16_384


def response(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of an embeddings response. Raises BadRequest for an invalid ``input`` or ``dimensions``."""
    texts = _inputs(fields.get("input"))
    dimensions = fields.get("dimensions") or DIMENSIONS
    if not is_whole_number(dimensions, 1, MAX_DIMENSIONS):
        raise BadRequest(
            f"`dimensions` must be a whole number from 1 to {MAX_DIMENSIONS}.",
            code="invalid_value",
            param="dimensions",
        )
    encode = _as_base64 if fields.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(unit_vector(text, dimensions))}
        for index, text in enumerate(texts)
    ]
    count = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": fields["model"], "usage": usage}


def unit_vector(text: str, dimensions: int) -> list[float]:
    """Returns ``dimensions`` numbers whose squares add up to 1."""
    raw = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    # 32767.5 is the middle of the range: no number is zero, so no text has the zero vector.
    numbers = [number - 32767.5 for (number,) in struct.iter_unpack("<H", raw)]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


def _as_base64(vector: list[float]) -> str:
    """Encodes little-endian 32-bit floats, as OpenAI's own clients ask for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _inputs(given: Any) -> list[str]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(item, str) for item in given):
            return given
        if all(isinstance(item, int) for item in given):
            return [str(given)]
        if all(isinstance(item, list) for item in given):
            return [str(item) for item in given]
    raise BadRequest(
        "`input` must be a string, or a list of strings or of token numbers.", code="invalid_type", param="input"
    )
