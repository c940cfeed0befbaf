"""Tokens, secrets and changes in words. Pure: from values to lines of text."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.core.clock import to_local_iso
from gateway.limits.config import LimitSet
from gateway.tokens.changes import RecordChange
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.models import PreviousSecret, Role, Status, TokenRecord

Marks = Mapping[Status, str]
MARKS: Marks = MappingProxyType({Status.ACTIVE: "✓ Active", Status.EXPIRED: "✗ Expired", Status.REVOKED: "✗ Revoked"})
COLOURED_MARKS: Marks = MappingProxyType(
    {status: f"\x1b[{32 if status is Status.ACTIVE else 31}m{mark}\x1b[0m" for status, mark in MARKS.items()}
)
USAGE_HEADINGS = ("TOKEN", "NAME", "STATUS", "USES", "LAST USED", "OLD SECRETS")
AUDIT_HEADINGS = ("TIME", "WHO", "FROM", "ACTION", "TOKEN", "NAME", "CHANGES")
_SHOWN_BY_ITSELF = ("id", "name", "prefix")


def found(count: int) -> str:
    return f"Found {count} token(s)" + (":" if count else ".")


def secret_lines(secret: str) -> list[str]:
    """A new secret, and the two lines to try next."""
    return [
        "",
        f"  {secret}",
        "",
        "⚠️  Save it now: only its hash is kept, so it cannot be shown again.",
        "",
        "Try it:",
        f"  OPENAI_API_KEY={secret}    # in the .env of the program that calls the gateway",
        f"  curl http://127.0.0.1:8000/v1/models -H 'Authorization: Bearer {secret}'",
    ]


def lines(view: TokenHierarchy, record: TokenRecord, now: float, marks: Marks) -> list[str]:
    """The lines that every token has, then those for what is set."""
    described = [
        f"Name: {record.name}",
        f"Status: {marks[view.status(record, now)]}",
        f"Created: {to_local_iso(record.created_at)}",
        f"Last used: {_moment(record.last_used)}",
    ]
    if record.owner is not None:
        described.append(f"Owner: {record.owner}")
    if record.role is not Role.MEMBER:
        described.append(f"Role: {record.role}")
    if record.expires_at is not None:
        described.append(f"Expires: {to_local_iso(record.expires_at)}")
    if record.models is not None:
        described.append(f"Models: {', '.join(record.models)}")
    if record.limits is not None:
        described.append(f"Limits: {_limits(record.limits)}")
        described += [f"Limits on {pattern}: {_limits(limits)}" for pattern, limits in record.limits.models]
    return described


def _limits(limits: LimitSet) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.as_json().items() if name != "models")


def more_lines(view: TokenHierarchy, record: TokenRecord, now: float) -> list[str]:
    """What only ``show`` tells."""
    described = [f"Id: {record.id}", f"Uses: {record.usage_count}"]
    if record.parent_id is not None:
        parent = view.find_by_id(record.parent_id)
        described.append(f"Parent: {record.parent_id}  {parent.name if parent else '(gone)'}")
    described += [
        f"Child: {child.id}  {child.name}" for child in view.descendants(record) if child.parent_id == record.id
    ]
    if record.metadata:
        described.append(f"Metadata: {msgspec.json.encode(record.metadata).decode()}")
    if record.revoked_at is not None:
        described.append(f"Revoked: {to_local_iso(record.revoked_at)}")
    return described + [_old_secret(view, record, old, now) for old in record.previous_secrets]


def _old_secret(view: TokenHierarchy, record: TokenRecord, old: PreviousSecret, now: float) -> str:
    ended = old.valid_until if old.revoked_at is None else old.revoked_at
    is_alive = view.secret_status(SecretMatch(record, old), now) is Status.ACTIVE
    state = f"works until {to_local_iso(ended)}" if is_alive else f"ended {to_local_iso(min(ended, int(now)))}"
    uses = f"{old.usage_count} use(s) since it was replaced"
    last = "" if old.last_used is None else f", last {to_local_iso(old.last_used)} from {old.last_used_from}"
    return f"Old secret: {old.prefix}...  {state}; {uses}{last}"


def branch(
    record: TokenRecord,
    children: Mapping[str | None, Sequence[TokenRecord]],
    mark: Callable[[TokenRecord], str],
    indent: tuple[str, str] = ("", ""),
) -> list[str]:
    """A token and what is below it. ``indent`` stands before its own line, and before those below."""
    below = children.get(record.id, ())
    drawn = [f"{indent[0]}{record.prefix}...  {record.name}  {mark(record)}"]
    for child in below:
        is_last = child is below[-1]
        step = (indent[1] + ("└── " if is_last else "├── "), indent[1] + ("    " if is_last else "│   "))
        drawn += branch(child, children, mark, step)
    return drawn


def fate_of(old: PreviousSecret, now: float) -> str:
    """What becomes of a secret that has just been replaced."""
    if old.status(now) is not Status.ACTIVE:
        return f"The old one ({old.prefix}...) has ended."
    return (
        f"The old one ({old.prefix}...) works until {to_local_iso(old.valid_until)}; `show` tells whether it is used."
    )


def outcome_of_revoking(view: TokenHierarchy, change: RecordChange) -> str:
    record = change.record
    if record.revoked_at is None:
        before = change.before.previous_secrets if change.before else ()
        ended = next((old for old in record.previous_secrets if old not in before), None)
        if ended is None:
            return (
                f"That secret of token {record.name!r} had ended already; its newer one ({record.prefix}...) works on."
            )
        return (
            f"Ended the replaced secret {ended.prefix}... of token {record.name!r}; "
            f"its newer secret ({record.prefix}...) works on."
        )
    below = sum(1 for _ in view.descendants(record))
    return f"Revoked token {record.name!r} ({record.prefix}...)" + (f" and {below} below it." if below else ".")


def usage_row(view: TokenHierarchy, record: TokenRecord, now: float) -> tuple[str, ...]:
    alive = [
        old for old in record.previous_secrets if view.secret_status(SecretMatch(record, old), now) is Status.ACTIVE
    ]
    old = ", ".join(f"{one.prefix}... {one.usage_count} use(s), last {_moment(one.last_used)}" for one in alive)
    status = view.status(record, now).value
    return f"{record.prefix}...", record.name, status, str(record.usage_count), _moment(record.last_used), old


def audit_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    actor = entry.get("actor") or {}
    who = f"{actor.get('kind')} {actor.get('name')}"
    changes = "; ".join(
        f"{field}: {_value(before)} → {_value(after)}" if before is not None else f"{field}: {_value(after)}"
        for field, (before, after) in (entry.get("changes") or {}).items()
        if field not in _SHOWN_BY_ITSELF or before is not None
    )
    return (
        str(entry.get("time")),
        who,
        str(actor.get("address") or "-"),
        str(entry.get("action")),
        str(entry.get("token_id")),
        str(entry.get("token")),
        changes,
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _moment(seconds: int | None) -> str:
    return "Never" if seconds is None else to_local_iso(seconds)
