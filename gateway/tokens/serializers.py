"""What may be shown of a token: everything but its hashes."""

from typing import Any

from gateway.core.clock import to_iso
from gateway.tokens import validation
from gateway.tokens.changes import CreatedToken
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import PreviousSecret, TokenRecord
from gateway.tokens.rights import rights_of

_USAGE = ("id", "name", "prefix", "status", "usage_count", "last_used", "previous_secrets")
_VALIDITY = ("name", "created_at", "last_used", "usage_count")


def public(view: TokenHierarchy, record: TokenRecord, now: float) -> dict[str, Any]:
    """The JSON object that the management API and ``--json`` answer. The status is that of the whole line of parents."""
    shown = validation.as_json(record)
    shown["previous_secrets"] = [_public_secret(view, record, old, now) for old in record.previous_secrets]
    # The status stands where the file has the hash.
    status = ("status", view.status(record, now).value)
    return dict(status if name == "hash" else (name, value) for name, value in shown.items())


def _public_secret(view: TokenHierarchy, record: TokenRecord, old: PreviousSecret, now: float) -> dict[str, Any]:
    return {
        "prefix": old.prefix,
        "status": view.secret_status(SecretMatch(record, old), now).value,
        "rotated_at": to_iso(old.rotated_at),
        "valid_until": to_iso(old.valid_until),
        "revoked_at": to_iso(old.revoked_at),
        "last_used": to_iso(old.last_used),
        "last_used_from": old.last_used_from,
        "usage_count": old.usage_count,
    }


def created(view: TokenHierarchy, made: CreatedToken, now: float) -> dict[str, Any]:
    """The same with the secret: the one time that it is shown."""
    return {"token": made.secret, **public(view, made.record, now)}


def usage(view: TokenHierarchy, record: TokenRecord, now: float) -> dict[str, Any]:
    """How often a token was used, and how often, since when and from where its replaced secrets still are."""
    shown = public(view, record, now)
    return {name: shown[name] for name in _USAGE}


def validity(view: TokenHierarchy, match: SecretMatch | None, now: float) -> dict[str, Any]:
    """The answer to "is this secret good?". Of a bad one nothing is told but why."""
    if match is None:
        return {"valid": False, "status": "unknown"}
    status = view.secret_status(match, now).value
    if status != "active":
        return {"valid": False, "status": status}
    shown = validation.as_json(match.record)
    kept = {name: shown[name] for name in _VALIDITY}
    return {"valid": True, **kept, "status": status, "expires_at": to_iso(rights_of(view, match).expires_at)}
