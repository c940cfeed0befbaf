"""Describes tokens, secrets and changes as lines of text, and writes tables."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TextIO

import msgspec

from gateway.cli.console import print_lines
from gateway.core.clock import to_local_iso
from gateway.core.escaping import for_display
from gateway.limits.config import LimitSet
from gateway.tokens import serializers
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import PreviousSecret, RecordChange, Role, SecretMatch, Status, TokenRecord

MARKS: Mapping[Status, str] = MappingProxyType(
    {Status.ACTIVE: "✓ Active", Status.EXPIRED: "✗ Expired", Status.REVOKED: "✗ Revoked"}
)
_STATUS_AT_END = re.compile(rf"( *Status: |[ │├└─]*\S+\.\.\.  .*  )({'|'.join(MARKS.values())})")
"""A line of a list or of a tree that ends with a status."""
USAGE_HEADINGS = ("TOKEN", "NAME", "STATUS", "USES", "LAST USED", "OLD SECRETS")
FIRST_TOKEN = "This is the first token: if the gateway had no keys until now, every client needs one within a second."
LIST_HEADINGS = ("ID", "TOKEN", "NAME", "STATUS", "OWNER", "CREATED", "LAST USED", "EXPIRES")
AUDIT_HEADINGS = ("TIME", "WHO", "FROM", "ACTION", "TOKEN", "NAME", "CHANGES")
_HAVE_OWN_COLUMN = ("id", "name", "prefix")


def colour_status(line: str) -> str:
    """Returns an escaped line with the status at its end in colour, if it has one."""
    found = _STATUS_AT_END.fullmatch(line)
    if found is None:
        return line
    return f"{found[1]}\x1b[{32 if found[2] == MARKS[Status.ACTIVE] else 31}m{found[2]}\x1b[0m"


def count_line(count: int) -> str:
    """Returns the line above a list."""
    return f"Found {count} token(s)" + (":" if count else ".")


def secret_lines(secret: str, client_url: str) -> list[str]:
    """Returns the lines that show a new secret, with two to try next. ``client_url`` is the gateway's address."""
    return [
        "",
        f"  {secret}",
        "",
        "⚠️  Save it now: only its hash is kept, so it cannot be shown again.",
        "",
        "Try it:",
        f"  OPENAI_API_KEY={secret}    # in the .env of the program that calls the gateway",
        f"  curl {client_url}/v1/models -H 'Authorization: Bearer {secret}'",
    ]


def token_lines(view: TokenHierarchy, record: TokenRecord, now: float) -> list[str]:
    """Returns the lines that every token has, then those for what is set."""
    described = [
        f"Name: {record.name}",
        f"Status: {MARKS[view.status(record, now)]}",
        f"Created: {to_local_iso(record.created_at)}",
        f"Last used: {_time(record.last_used)}",
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
        described.append(f"Limits: {_limits_text(record.limits)}")
        described += [f"Limits on {pattern}: {_limits_text(limits)}" for pattern, limits in record.limits.models]
    return described


def _limits_text(limits: LimitSet) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.as_json().items() if name != "models")


def detail_lines(view: TokenHierarchy, record: TokenRecord, now: float) -> list[str]:
    """Returns the lines that only ``show`` prints."""
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
    return described + [_replaced_secret_detail(view, record, old, now) for old in record.previous_secrets]


def _replaced_secret_detail(view: TokenHierarchy, record: TokenRecord, old: PreviousSecret, now: float) -> str:
    ended = old.valid_until if old.revoked_at is None else old.revoked_at
    is_alive = view.secret_status(SecretMatch(record, old), now) is Status.ACTIVE
    state = f"works until {to_local_iso(ended)}" if is_alive else f"ended {to_local_iso(min(ended, int(now)))}"
    uses = f"{old.usage_count} use(s) since it was replaced"
    last = "" if old.last_used is None else f", last {to_local_iso(old.last_used)} from {old.last_used_from}"
    return f"Old secret: {old.prefix}...  {state}; {uses}{last}"


def tree_lines(
    record: TokenRecord,
    children: Mapping[str | None, Sequence[TokenRecord]],
    mark: Callable[[TokenRecord], str],
    indent: tuple[str, str] = ("", ""),
) -> list[str]:
    """Returns the lines of a token and of those below it. ``indent`` comes before its own line, and before those below."""
    below = children.get(record.id, ())
    lines = [f"{indent[0]}{record.prefix}...  {record.name}  {mark(record)}"]
    for child in below:
        is_last = child is below[-1]
        step = (indent[1] + ("└── " if is_last else "├── "), indent[1] + ("    " if is_last else "│   "))
        lines += tree_lines(child, children, mark, step)
    return lines


def replaced_secret_line(old: PreviousSecret, now: float) -> str:
    """Returns the line that says how long a secret works on that has just been replaced."""
    if old.status(now) is not Status.ACTIVE:
        return f"The old one ({old.prefix}...) has ended."
    return (
        f"The old one ({old.prefix}...) works until {to_local_iso(old.valid_until)}; `show` tells whether it is used."
    )


def validity_line(view: TokenHierarchy, match: SecretMatch | None, now: float) -> str:
    """Returns the line that says whether a secret is valid; ``match`` is the token that it belongs to."""
    validity = serializers.to_validity_json(view, match, now)
    if not validity["valid"] or match is None:
        return f"✗ Not valid: {validity['status']}"
    prefix = match.previous.prefix if match.previous else match.record.prefix
    replaced = f", replaced, until {validity['expires_at']}" if match.previous else ""
    return f"✓ Valid: {match.record.name!r} ({prefix}...{replaced})"


def revocation_line(view: TokenHierarchy, change: RecordChange) -> str:
    """Returns the line that says what a revocation has ended: a token and those below it, or only a replaced secret."""
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
    """Returns the cells below ``USAGE_HEADINGS``."""
    alive = [
        old for old in record.previous_secrets if view.secret_status(SecretMatch(record, old), now) is Status.ACTIVE
    ]
    old = ", ".join(f"{one.prefix}... {one.usage_count} use(s), last {_time(one.last_used)}" for one in alive)
    status = view.status(record, now).value
    return f"{record.prefix}...", record.name, status, str(record.usage_count), _time(record.last_used), old


def list_row(view: TokenHierarchy, record: TokenRecord, now: float) -> tuple[str, ...]:
    """Returns the cells below ``LIST_HEADINGS``."""
    times = to_local_iso(record.created_at), _time(record.last_used), _time(record.expires_at)
    return record.id, f"{record.prefix}...", record.name, view.status(record, now).value, record.owner or "-", *times


def audit_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the cells below ``AUDIT_HEADINGS``."""
    actor = entry.get("actor") or {}
    who = f"{actor.get('kind')} {actor.get('name')}"
    changes = "; ".join(
        f"{field}: {_value(before)} → {_value(after)}" if before is not None else f"{field}: {_value(after)}"
        for field, (before, after) in (entry.get("changes") or {}).items()
        if field not in _HAVE_OWN_COLUMN or before is not None
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


def _time(seconds: int | None) -> str:
    return "Never" if seconds is None else to_local_iso(seconds)


def write_table(out: TextIO, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes aligned columns: plain text to a pipe, and to a terminal a table that fits into its width.

    Cells are escaped first, so that each row is one line and the columns are as wide as they look.
    """
    shown = [tuple(map(for_display, row)) for row in rows]
    if out.isatty():
        _write_terminal_table(out, headings, shown)
    else:
        print_lines(out, *plain_table(headings, shown))


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, the columns padded with spaces."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _write_terminal_table(out: TextIO, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a str would be searched for markup, and a name may look like it
    Console(file=out).print(table)
