"""What may be shown of a token: everything but its hash."""

from typing import Any

from gateway.tokens import fields
from gateway.tokens.record import TokenRecord


def public(record: TokenRecord, now: float) -> dict[str, Any]:
    """The JSON object that the management API and ``--json`` answer."""
    shown = fields.as_json(record)
    # The status stands where the file has the hash.
    status = ("status", record.status(now).value)
    return dict(status if name == "hash" else (name, value) for name, value in shown.items())


def created(record: TokenRecord, secret: str, now: float) -> dict[str, Any]:
    """The same with the secret: the one time that it is shown."""
    return {"token": secret, **public(record, now)}


def validity(record: TokenRecord | None, now: float) -> dict[str, Any]:
    """The answer to "is this secret good?". Of a bad one nothing is told but why."""
    if record is None:
        return {"valid": False, "status": "unknown"}
    shown = public(record, now)
    if shown["status"] != "active":
        return {"valid": False, "status": shown["status"]}
    kept = ("name", "created_at", "last_used", "usage_count", "status", "expires_at")
    return {"valid": True, **{key: shown[key] for key in kept}}
