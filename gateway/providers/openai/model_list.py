"""Reads an upstream's list of models, entry by entry: what has no name is left out. Pure."""

from typing import Any

from gateway.core import lenient_json
from gateway.core.upstream_errors import UpstreamInvalid

MAX_BYTES = 16 * 1024 * 1024
MAX_VALUES = 300_000
"""How many JSON values a list of models may have: 16 MiB of empty lists take twenty times as much when they are decoded."""
NO_SUCH_ROUTE = frozenset({404, 405, 410, 501})
"""What upstreams answer that have no list of models."""


def parse(body: bytes) -> list[dict[str, Any]]:
    """Returns OpenAI's objects of the models that a list names.

    A list under ``data`` or ``models``, or without anything around it; of objects with an ``id`` or a ``name``, or of names.
    Raises UpstreamInvalid where the body is none of these, or has too many values.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise UpstreamInvalid(f"The upstream's list of models has more than {MAX_VALUES} values.")
    try:
        content = lenient_json.decode(body)
    except ValueError:
        raise UpstreamInvalid("The upstream's list of models is not JSON.") from None
    if isinstance(content, dict) and ("data" in content or "models" in content):
        content = content.get("data") or content.get("models") or []
    if not isinstance(content, list):
        raise UpstreamInvalid("The upstream's list of models is invalid.")
    return [model for model in map(_model, content) if model is not None]


def _model(entry: Any) -> dict[str, Any] | None:
    if isinstance(entry, str):
        entry = {"id": entry}
    if not isinstance(entry, dict):
        return None
    name = next((entry[key] for key in ("id", "name", "model") if isinstance(entry.get(key), str) and entry[key]), None)
    return None if name is None else {"object": "model", "created": 0, "owned_by": "upstream", **entry, "id": name}
