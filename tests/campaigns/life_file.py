"""Reads a token file for the model of tokens, with a reader that knows nothing of the code."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.campaigns.life_model import Secret, Token, stored_form_of


def read(path: Path) -> dict[str, Any]:
    """Returns the tokens of a file as ``Model.stored_form`` does. Raises ValueError for a torn file."""
    if not path.exists():
        return {}
    content = json.loads(path.read_bytes())
    if "tokens" not in content:
        return {token.id: stored_form_of(token) for token in (freegpt_token(*pair) for pair in content.items())}
    return {item["id"]: _read(item) for item in content["tokens"]}


def _read(item: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"rpm": (item["limits"] or {}).get("rpm"), "previous_secrets": []}
    for name, value in item.items():
        if name == "previous_secrets":
            known[name] = [{key: _time(key, found) for key, found in old.items()} for old in value]
        elif name not in ("id", "limits", "metadata"):
            known[name] = _time(name, value)
    return known


def _time(name: str, value: Any) -> Any:
    is_time = value is not None and (name.endswith(("_at", "_until")) or name == "last_used")
    return int(datetime.fromisoformat(value).timestamp()) if is_time else value


def freegpt_token(text: str, item: Mapping[str, Any]) -> Token:
    created = _time("created_at", item["created_at"])
    used = _time("last_used", item["last_used"])
    dead = None if item["active"] else used or created
    return Token(f"tok_{Secret(text).hash[:16]}", item["name"], created, Secret(text), revoked_at=dead, last_used=used)


def freegpt(text: str, is_active: bool) -> dict[str, Any]:
    """Returns a token as FreeGPT stored it."""
    dates = {"created_at": "2025-11-26T10:30:00+00:00", "last_used": "2025-11-27T10:30:00+00:00"}
    return {text: {"name": "old", **dates, "active": is_active}}


def foreign(number: int) -> str:
    """Returns a secret that the gateway did not make."""
    return f"sk{number:06}-made-up&%{number * 7919:012}"
