"""What may be shown of a token: everything but its hashes."""

from typing import Any

from gateway.core.clock import to_iso
from gateway.tokens import validation
from gateway.tokens.changes import NewToken
from gateway.tokens.hierarchy import Held, TokenView
from gateway.tokens.models import PreviousSecret, TokenRecord
from gateway.tokens.rights import grant_of

_USAGE = ("id", "name", "prefix", "status", "usage_count", "last_used", "previous_secrets")
_VALIDITY = ("name", "created_at", "last_used", "usage_count")


def public(view: TokenView, record: TokenRecord, now: float) -> dict[str, Any]:
    """The JSON object that the management API and ``--json`` answer. The status is that of the whole line of parents."""
    shown = validation.as_json(record)
    shown["previous_secrets"] = [_public_secret(view, record, old, now) for old in record.previous_secrets]
    # The status stands where the file has the hash.
    status = ("status", view.status(record, now).value)
    return dict(status if name == "hash" else (name, value) for name, value in shown.items())


def _public_secret(view: TokenView, record: TokenRecord, old: PreviousSecret, now: float) -> dict[str, Any]:
    return {
        "prefix": old.prefix,
        "status": view.secret_status(Held(record, old), now).value,
        "rotated_at": to_iso(old.rotated_at),
        "valid_until": to_iso(old.valid_until),
        "revoked_at": to_iso(old.revoked_at),
        "last_used": to_iso(old.last_used),
        "last_used_from": old.last_used_from,
        "usage_count": old.usage_count,
    }


def created(view: TokenView, made: NewToken, now: float) -> dict[str, Any]:
    """The same with the secret: the one time that it is shown."""
    return {"token": made.secret, **public(view, made.record, now)}


def usage(view: TokenView, record: TokenRecord, now: float) -> dict[str, Any]:
    """How often a token was used, and how often, since when and from where its replaced secrets still are."""
    shown = public(view, record, now)
    return {name: shown[name] for name in _USAGE}


def validity(view: TokenView, held: Held | None, now: float) -> dict[str, Any]:
    """The answer to "is this secret good?". Of a bad one nothing is told but why."""
    if held is None:
        return {"valid": False, "status": "unknown"}
    status = view.secret_status(held, now).value
    if status != "active":
        return {"valid": False, "status": status}
    shown = validation.as_json(held.record)
    kept = {name: shown[name] for name in _VALIDITY}
    return {"valid": True, **kept, "status": status, "expires_at": to_iso(grant_of(view, held).expires_at)}
