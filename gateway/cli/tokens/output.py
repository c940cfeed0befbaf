"""What the command line shows: sentences and tables for people, or one JSON document."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import msgspec

from gateway.audit.hash_chain import Verdict
from gateway.cli.tokens import tables
from gateway.cli.tokens import text as words
from gateway.tokens import serializers
from gateway.tokens.changes import CreatedToken, RecordChange
from gateway.tokens.hierarchy import SecretMatch, TokenHierarchy
from gateway.tokens.lookup import AmbiguousToken
from gateway.tokens.models import TokenRecord


class Printer:
    """Writes results to ``out`` and complaints to ``err``; with ``as_json`` both are one JSON document on ``out``."""

    def __init__(self, out: TextIO, err: TextIO, as_json: bool, in_colour: bool) -> None:
        self._out = out
        self._err = err
        self._as_json = as_json
        self._marks = words.COLOURED_MARKS if in_colour else words.MARKS

    def created(self, view: TokenHierarchy, made: CreatedToken, now: float) -> None:
        if self._as_json:
            return self._json(serializers.created(view, made, now))
        return self._say(f"Created token {made.record.name!r}:", *words.secret_lines(made.secret))

    def rotated(self, view: TokenHierarchy, made: CreatedToken, now: float) -> None:
        if self._as_json:
            return self._json(serializers.created(view, made, now))
        old = made.record.previous_secrets[-1]
        return self._say(
            f"The new secret of token {made.record.name!r}:",
            *words.secret_lines(made.secret),
            "",
            words.fate_of(old, now),
        )

    def listed(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        if self._as_json:
            shown = [serializers.public(view, record, now) for record in tokens]
            return self._json({"tokens": shown, "pagination": _one_page(len(tokens))})
        lines = [words.found(len(tokens))]
        for number, record in enumerate(tokens, 1):
            described = words.lines(view, record, now, self._marks)
            lines += ["", f"{number}. {record.prefix}...", *(f"   {line}" for line in described)]
        return self._say(*lines)

    def tree(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        """Those tokens, each below its nearest ancestor among them."""
        children = _families(view, tokens)
        if self._as_json:

            def nested(record: TokenRecord) -> dict[str, Any]:
                below = [nested(child) for child in children.get(record.id, ())]
                return {**serializers.public(view, record, now), "children": below}

            roots = [nested(record) for record in children.get(None, ())]
            return self._json({"tokens": roots, "pagination": _one_page(len(tokens))})
        lines = [words.found(len(tokens)), *([""] if tokens else [])]
        for root in children.get(None, ()):
            lines += words.branch(root, children, lambda one: self._marks[view.status(one, now)])
        return self._say(*lines)

    def shown(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        if self._as_json:
            return self._json(serializers.public(view, record, now))
        described = [*words.lines(view, record, now, self._marks), *words.more_lines(view, record, now)]
        return self._say(f"{record.prefix}...", *(f"   {line}" for line in described))

    def revoked(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        if self._as_json:
            return self._json(serializers.public(view, change.record, now))
        return self._say(words.outcome_of_revoking(view, change))

    def deleted(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        """``view`` is from before."""
        if self._as_json:
            return self._json(serializers.public(view, record, now))
        return self._say(f"Deleted token {record.name!r} ({record.prefix}...).")

    def usage(self, document: Callable[[], dict[str, Any]], write: Callable[[TextIO], None]) -> None:
        """``document`` makes the JSON, ``write`` the tables for people."""
        return self._json(document()) if self._as_json else write(self._out)

    def text(self, whole: str) -> None:
        """As it stands, with its own line ends."""
        self._out.write(whole)

    def verified(self, view: TokenHierarchy, match: SecretMatch | None, now: float) -> None:
        answer = serializers.validity(view, match, now)
        if self._as_json:
            return self._json(answer)
        if answer["valid"] and match is not None:
            prefix = match.previous.prefix if match.previous else match.record.prefix
            old = f", replaced, until {answer['expires_at']}" if match.previous else ""
            return self._say(f"✓ Valid: {match.record.name!r} ({prefix}...{old})")
        return self._say(f"✗ Not valid: {answer['status']}")

    def imported(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        if self._as_json:
            return self._json({"imported": [serializers.public(view, record, now) for record in tokens]})
        return self._say(
            f"Imported {len(tokens)} token(s).", *(f"   {record.prefix}...  {record.name}" for record in tokens)
        )

    def audit(self, entries: Sequence[dict[str, Any]]) -> None:
        if self._as_json:
            return self._json({"entries": list(entries)})
        return tables.write(self._out, words.AUDIT_HEADINGS, [words.audit_row(entry) for entry in entries])

    def verdict(self, verdict: Verdict) -> None:
        broken = verdict.broken
        if self._as_json:
            found = None if broken is None else {"line": broken.line, "reason": broken.reason}
            end = {"lines": verdict.end.number, "hash": verdict.end.hash}
            return self._json({"whole": broken is None, **end, "broken": found})
        if broken is None:
            return self._say(f"✓ Whole: {verdict.end.number} line(s), the last with the hash {verdict.end.hash}")
        return self._say(f"✗ Line {broken.line} {broken.reason}")

    def script(self, shell: str, text: str) -> None:
        if self._as_json:
            return self._json({"shell": shell, "script": text})
        return self._say(text)

    def ambiguous(self, view: TokenHierarchy, error: AmbiguousToken, now: float) -> None:
        if self._as_json:
            matches = [serializers.public(view, record, now) for record in error.matches]
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


def _families(view: TokenHierarchy, tokens: Sequence[TokenRecord]) -> dict[str | None, list[TokenRecord]]:
    """Children by the id of their nearest ancestor among ``tokens``; None has those without one."""
    known = {record.id for record in tokens}
    children: dict[str | None, list[TokenRecord]] = {}
    for record in tokens:
        above = (parent.id for parent in view.parents(record) or () if parent.id in known)
        children.setdefault(next(above, None), []).append(record)
    return children


def _one_page(total: int) -> dict[str, Any]:
    """The management API's form; the command line shows everything on one page."""
    return {
        "page": 1,
        "per_page": total,
        "total": total,
        "total_pages": 1,
        "has_next": False,
        "has_prev": False,
    }
