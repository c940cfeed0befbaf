"""Renders what may be shown of a token as JSON objects: everything but its hashes."""

from typing import Any

from gateway.core.clock import to_iso
from gateway.tokens import validation
from gateway.tokens.changes import CreatedToken
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import PreviousSecret, SecretMatch, TokenRecord
from gateway.tokens.rights import rights_of

_USAGE_FIELDS = ("id", "name", "prefix", "status", "usage_count", "last_used", "previous_secrets")
_VALIDITY_FIELDS = ("name", "created_at", "last_used", "usage_count")


def to_public_json(tokens: TokenHierarchy, record: TokenRecord, now: float) -> dict[str, Any]:
    """Returns the object that the management API and ``--json`` show of a token.

    ``status`` counts the parents in. It stands where the token file has ``hash``.
    """
    fields: dict[str, Any] = {}
    for name, value in validation.to_json(record).items():
        if name == "hash":
            fields["status"] = tokens.status(record, now).value
        elif name == "previous_secrets":
            fields[name] = [_previous_secret(tokens, record, previous, now) for previous in record.previous_secrets]
        else:
            fields[name] = value
    return fields


def _previous_secret(
    tokens: TokenHierarchy, record: TokenRecord, previous: PreviousSecret, now: float
) -> dict[str, Any]:
    return {
        "prefix": previous.prefix,
        "status": tokens.secret_status(SecretMatch(record, previous), now).value,
        "rotated_at": to_iso(previous.rotated_at),
        "valid_until": to_iso(previous.valid_until),
        "revoked_at": to_iso(previous.revoked_at),
        "last_used": to_iso(previous.last_used),
        "last_used_from": previous.last_used_from,
        "usage_count": previous.usage_count,
    }


def to_created_json(tokens: TokenHierarchy, created: CreatedToken, now: float) -> dict[str, Any]:
    """Returns the same with the secret as ``token``: the one time that it is shown."""
    return {"token": created.secret, **to_public_json(tokens, created.record, now)}


def to_usage_json(tokens: TokenHierarchy, record: TokenRecord, now: float) -> dict[str, Any]:
    """Returns how often a token was used, and how often, since when and from where its replaced secrets still are."""
    public = to_public_json(tokens, record, now)
    return {name: public[name] for name in _USAGE_FIELDS}


def to_validity_json(tokens: TokenHierarchy, match: SecretMatch | None, now: float) -> dict[str, Any]:
    """Returns whether a secret is good, for whoever has it. Of a bad one nothing is told but why."""
    if match is None:
        return {"valid": False, "status": "unknown"}
    status = tokens.secret_status(match, now).value
    if status != "active":
        return {"valid": False, "status": status}
    fields = validation.to_json(match.record)
    shown = {name: fields[name] for name in _VALIDITY_FIELDS}
    return {
        "valid": True,
        **shown,
        "status": status,
        "expires_at": to_iso(rights_of(match, tokens.parents(match.record)).expires_at),
    }
