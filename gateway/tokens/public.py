"""What may be shown of a token: everything but its hash."""

from typing import Any

from gateway.clock import to_iso
from gateway.tokens.record import TokenRecord


def public(record: TokenRecord, now: float) -> dict[str, Any]:
    """The JSON object that the management API and ``--json`` answer."""
    return {
        "id": record.id,
        "name": record.name,
        "prefix": record.prefix,
        "status": record.status(now).value,
        "owner": record.owner,
        "role": record.role.value,
        "parent_id": record.parent_id,
        "created_at": to_iso(record.created_at),
        "expires_at": to_iso(record.expires_at),
        "revoked_at": to_iso(record.revoked_at),
        "last_used": to_iso(record.last_used),
        "usage_count": record.usage_count,
        "models": record.models,
        "limits": record.limits,
        "metadata": record.metadata,
    }


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
