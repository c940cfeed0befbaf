"""What the command line shows: sentences for people, or one JSON document."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

import msgspec

from gateway.clock import to_local_iso
from gateway.tokens.public import created, public, validity
from gateway.tokens.record import Role, Status, TokenRecord
from gateway.tokens.service import AmbiguousToken

_STATUS = {Status.ACTIVE: "✓ Active", Status.EXPIRED: "✗ Expired", Status.REVOKED: "✗ Revoked"}


class Printer:
    """Writes results to ``out`` and complaints to ``err``; with ``as_json`` both are one JSON document on ``out``."""

    def __init__(self, out: TextIO, err: TextIO, as_json: bool) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json

    def created(self, record: TokenRecord, secret: str, now: float) -> None:
        if self._as_json:
            return self._json(created(record, secret, now))
        self._say(
            f"Created token {record.name!r}:",
            "",
            f"  {secret}",
            "",
            "⚠️  Save it now: only its hash is kept, so it cannot be shown again.",
            "",
            "Try it:",
            f"  OPENAI_API_KEY={secret}    # in the .env of the program that calls the gateway",
            f"  curl http://127.0.0.1:8000/v1/models -H 'Authorization: Bearer {secret}'",
        )
        return None

    def listed(self, tokens: Sequence[TokenRecord], now: float) -> None:
        if self._as_json:
            return self._json({"tokens": [public(record, now) for record in tokens], "pagination": _one_page(tokens)})
        if not tokens:
            return self._say("Found 0 token(s).")
        lines = [f"Found {len(tokens)} token(s):"]
        for number, record in enumerate(tokens, 1):
            lines += ["", f"{number}. {record.prefix}...", *(f"   {line}" for line in _lines(record, now))]
        self._say(*lines)
        return None

    def shown(self, record: TokenRecord, now: float) -> None:
        if self._as_json:
            return self._json(public(record, now))
        more = [f"Id: {record.id}", f"Uses: {record.usage_count}"]
        if record.revoked_at is not None:
            more.append(f"Revoked: {to_local_iso(record.revoked_at)}")
        self._say(f"{record.prefix}...", *(f"   {line}" for line in [*_lines(record, now), *more]))
        return None

    def changed(self, what: str, record: TokenRecord, now: float) -> None:
        if self._as_json:
            return self._json(public(record, now))
        return self._say(f"{what} token {record.name!r} ({record.prefix}...).")

    def verified(self, record: TokenRecord | None, now: float) -> None:
        answer = validity(record, now)
        if self._as_json:
            return self._json(answer)
        if answer["valid"] and record is not None:
            return self._say(f"✓ Valid: {record.name!r} ({record.prefix}...)")
        return self._say(f"✗ Not valid: {answer['status']}")

    def imported(self, tokens: Sequence[TokenRecord], now: float) -> None:
        if self._as_json:
            return self._json({"imported": [public(record, now) for record in tokens]})
        self._say(f"Imported {len(tokens)} token(s).", *(f"   {record.prefix}...  {record.name}" for record in tokens))
        return None

    def ambiguous(self, error: AmbiguousToken, now: float) -> None:
        if self._as_json:
            matches = [public(record, now) for record in error.matches]
            return self._json({"error": {"message": str(error)}, "matches": matches})
        lines = [f"   {record.id}  {record.prefix}...  {record.name}" for record in error.matches]
        print(f"{error}; nothing was changed. Name one by its id:", *lines, sep="\n", file=self._err)
        return None

    def failed(self, message: str) -> None:
        message = message.encode("utf-8", "backslashreplace").decode()  # a shell passes on what is no text
        if self._as_json:
            return self._json({"error": {"message": message}})
        print(f"token_manager.py: {message}", file=self._err)
        return None

    def flush(self) -> None:
        """Raises OSError where the output cannot be written."""
        self._out.flush()

    def confirmed(self, question: str) -> bool:
        print(f"{question} [y/N] ", end="", file=self._err, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self._out)

    def _json(self, document: dict[str, Any]) -> None:
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode(), file=self._out)


def _lines(record: TokenRecord, now: float) -> list[str]:
    """The lines that every token has, then those for what is set."""
    lines = [
        f"Name: {record.name}",
        f"Status: {_STATUS[record.status(now)]}",
        f"Created: {to_local_iso(record.created_at)}",
        f"Last used: {'Never' if record.last_used is None else to_local_iso(record.last_used)}",
    ]
    if record.owner is not None:
        lines.append(f"Owner: {record.owner}")
    if record.role is not Role.MEMBER:
        lines.append(f"Role: {record.role}")
    if record.expires_at is not None:
        lines.append(f"Expires: {to_local_iso(record.expires_at)}")
    if record.models is not None:
        lines.append(f"Models: {', '.join(record.models)}")
    if record.limits:
        lines.append(f"Limits: {msgspec.json.encode(record.limits).decode()}")
    return lines


def _one_page(tokens: Sequence[TokenRecord]) -> dict[str, Any]:
    """The management API's form; the command line shows everything on one page."""
    total = len(tokens)
    return {
        "page": 1,
        "per_page": total,
        "total": total,
        "total_pages": 1,
        "has_next": False,
        "has_prev": False,
    }
