"""Prints what commands return: ``TextPrinter`` as sentences and tables for people, ``JsonPrinter`` as one JSON document."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import msgspec

from gateway.audit.hash_chain import Verdict
from gateway.cli.console import WrongUsage, print_lines
from gateway.cli.tokens import text
from gateway.core.escaping import for_json
from gateway.tokens import serializers
from gateway.tokens.changes import CreatedToken
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.lookup import AmbiguousToken
from gateway.tokens.models import RecordChange, SecretMatch, TokenRecord

if TYPE_CHECKING:  # at run time only its own command imports it, because SQLite takes long to load
    from gateway.cli.tokens.usage import UsageReport


class Printer(Protocol):
    """Prints results. ``view`` holds the tokens after the command; ``now`` is in seconds since the epoch."""

    def print_created(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        """Prints a new token with its secret."""

    def print_rotated(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        """Prints the new secret of a token."""

    def print_list(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        """Prints tokens, one after the other."""

    def print_tree(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        """Prints tokens, each below its nearest ancestor among them."""

    def print_table(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        """Prints tokens, one line each."""

    def print_token(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        """Prints all that may be known of one token."""

    def print_updated(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        """Prints a token after a change of its fields."""

    def print_revoked(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        """Prints what a revocation has ended."""

    def print_deleted(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        """Prints a deleted token; ``view`` still has it."""

    def print_usage(self, report: "UsageReport") -> None:
        """Prints how often and for how much tokens were used."""

    def print_validity(self, view: TokenHierarchy, match: SecretMatch | None, now: float) -> None:
        """Prints whether a secret is valid; ``match`` is the token that it belongs to."""

    def print_imported(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        """Prints the tokens that were added."""

    def print_audit_log(self, entries: Sequence[dict[str, Any]]) -> None:
        """Prints the entries of the audit log."""

    def print_verdict(self, verdict: Verdict) -> None:
        """Prints whether the audit log is unbroken."""

    def print_completion(self, shell: str, script: str) -> None:
        """Prints the script that completes the commands in a shell."""

    def print_raw(self, content: str) -> None:
        """Prints what is not from outside, or is escaped already, with its own line ends."""

    def print_ambiguous(self, view: TokenHierarchy, error: AmbiguousToken, now: float) -> None:
        """Prints the tokens that a name fits."""

    def print_error(self, message: str) -> None:
        """Prints why a command failed."""

    def print_wrong_usage(self, error: WrongUsage) -> None:
        """Prints why the arguments cannot be parsed."""

    def ask(self, question: str) -> None:
        """Prints a question, on standard error."""

    def flush(self) -> None:
        """Flushes standard output. Raises OSError where it cannot be written."""


def create_printer(out: TextIO, err: TextIO, *, as_json: bool, in_colour: bool, client_url: str) -> Printer:
    """Returns the printer that ``--json`` asks for, or the one for people. ``client_url`` is in what it tells to try."""
    return JsonPrinter(out, err) if as_json else TextPrinter(out, err, in_colour, client_url)


class _Streams:
    """Holds the two streams, and does what both printers do alike."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def print_raw(self, content: str) -> None:
        self._out.write(content)

    def ask(self, question: str) -> None:
        print_lines(self._err, f"{question} [y/N] ", end="")

    def flush(self) -> None:
        self._out.flush()


class JsonPrinter(_Streams, Printer):
    """Prints one JSON document to ``out``, errors too."""

    def print_created(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        self._print(serializers.to_created_json(view, created, now))

    def print_rotated(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        self._print(serializers.to_created_json(view, created, now))

    def print_list(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        listed = [serializers.to_public_json(view, record, now) for record in tokens]
        self._print({"tokens": listed, "pagination": _single_page(len(tokens))})

    def print_tree(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        children = _children_by_parent(view, tokens)

        def with_children(record: TokenRecord) -> dict[str, Any]:
            below = [with_children(child) for child in children.get(record.id, ())]
            return {**serializers.to_public_json(view, record, now), "children": below}

        roots = [with_children(record) for record in children.get(None, ())]
        self._print({"tokens": roots, "pagination": _single_page(len(tokens))})

    def print_table(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        self.print_list(view, tokens, now)

    def print_token(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        self._print(serializers.to_public_json(view, record, now))

    def print_updated(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        self.print_token(view, change.record, now)

    def print_revoked(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        self._print(serializers.to_public_json(view, change.record, now))

    def print_deleted(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        self._print(serializers.to_public_json(view, record, now))

    def print_usage(self, report: "UsageReport") -> None:
        self._print(report.as_json())

    def print_validity(self, view: TokenHierarchy, match: SecretMatch | None, now: float) -> None:
        self._print(serializers.to_validity_json(view, match, now))

    def print_imported(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        self._print({"imported": [serializers.to_public_json(view, record, now) for record in tokens]})

    def print_audit_log(self, entries: Sequence[dict[str, Any]]) -> None:
        self._print({"entries": list(entries)})

    def print_verdict(self, verdict: Verdict) -> None:
        broken = verdict.broken and {"line": verdict.broken.line, "reason": verdict.broken.reason}
        end = {"lines": verdict.end.number, "hash": verdict.end.hash}
        self._print({"whole": broken is None, **end, "broken": broken})

    def print_completion(self, shell: str, script: str) -> None:
        self._print({"shell": shell, "script": script})

    def print_ambiguous(self, view: TokenHierarchy, error: AmbiguousToken, now: float) -> None:
        matches = [serializers.to_public_json(view, record, now) for record in error.matches]
        self._print({"error": {"message": str(error)}, "matches": matches})

    def print_error(self, message: str) -> None:
        self._print({"error": {"message": _encodable(message)}})

    def print_wrong_usage(self, error: WrongUsage) -> None:
        self.print_error(str(error))

    def _print(self, document: dict[str, Any]) -> None:
        shown = for_json(msgspec.json.format(msgspec.json.encode(document), indent=2))
        self._out.write(shown.decode() + "\n")


class TextPrinter(_Streams, Printer):
    """Prints sentences and tables to ``out``, errors to ``err``."""

    def __init__(self, out: TextIO, err: TextIO, in_colour: bool, client_url: str) -> None:
        super().__init__(out, err)
        self._client_url = client_url
        self._style: Callable[[str], str] = text.colour_status if in_colour else str

    def print_created(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        first = [] if len(view) > 1 else ["", text.FIRST_TOKEN]
        lines = text.secret_lines(created.secret, self._client_url)
        self._print(f"Created token {created.record.name!r}:", *lines, *first)

    def print_rotated(self, view: TokenHierarchy, created: CreatedToken, now: float) -> None:
        replaced = created.record.previous_secrets[-1]
        self._print(
            f"The new secret of token {created.record.name!r}:",
            *text.secret_lines(created.secret, self._client_url),
            "",
            text.replaced_secret_line(replaced, now),
        )

    def print_list(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        lines = [text.count_line(len(tokens))]
        for number, record in enumerate(tokens, 1):
            described = text.token_lines(view, record, now)
            lines += ["", f"{number}. {record.prefix}...", *(f"   {line}" for line in described)]
        self._print(*lines)

    def print_tree(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        children = _children_by_parent(view, tokens)
        lines = [text.count_line(len(tokens)), *([""] if tokens else [])]
        for root in children.get(None, ()):
            lines += text.tree_lines(root, children, lambda record: text.MARKS[view.status(record, now)])
        self._print(*lines)

    def print_table(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        text.write_table(self._out, text.LIST_HEADINGS, [text.list_row(view, record, now) for record in tokens])

    def print_token(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        described = [*text.token_lines(view, record, now), *text.detail_lines(view, record, now)]
        self._print(f"{record.prefix}...", *(f"   {line}" for line in described))

    def print_updated(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        record = change.record
        verb = "Updated" if change.action else "Nothing to change in"
        lines = (f"   {line}" for line in text.token_lines(view, record, now))
        self._print(f"{verb} token {record.name!r} ({record.prefix}...):", *lines)

    def print_revoked(self, view: TokenHierarchy, change: RecordChange, now: float) -> None:
        self._print(text.revocation_line(view, change))

    def print_deleted(self, view: TokenHierarchy, record: TokenRecord, now: float) -> None:
        self._print(f"Deleted token {record.name!r} ({record.prefix}...).")

    def print_usage(self, report: "UsageReport") -> None:
        report.write(self._out)

    def print_validity(self, view: TokenHierarchy, match: SecretMatch | None, now: float) -> None:
        self._print(text.validity_line(view, match, now))

    def print_imported(self, view: TokenHierarchy, tokens: Sequence[TokenRecord], now: float) -> None:
        lines = (f"   {record.prefix}...  {record.name}" for record in tokens)
        self._print(f"Imported {len(tokens)} token(s).", *lines)

    def print_audit_log(self, entries: Sequence[dict[str, Any]]) -> None:
        text.write_table(self._out, text.AUDIT_HEADINGS, [text.audit_row(entry) for entry in entries])

    def print_verdict(self, verdict: Verdict) -> None:
        if verdict.broken is None:
            self._print(f"✓ Whole: {verdict.end.number} line(s), the last with the hash {verdict.end.hash}")
        else:
            self._print(f"✗ Line {verdict.broken.line} {verdict.broken.reason}")

    def print_completion(self, shell: str, script: str) -> None:
        self.print_raw(f"{script}\n")

    def print_ambiguous(self, view: TokenHierarchy, error: AmbiguousToken, now: float) -> None:
        lines = [f"   {record.id}  {record.prefix}...  {record.name}" for record in error.matches]
        print_lines(self._err, f"{error}; nothing was changed. Name one by its id:", *lines)

    def print_error(self, message: str) -> None:
        print_lines(self._err, f"token_manager.py: {message}")

    def print_wrong_usage(self, error: WrongUsage) -> None:
        print_lines(self._err, *error.usage.rstrip().split("\n"), str(error))

    def _print(self, *lines: str) -> None:
        print_lines(self._out, *lines, style=self._style)


def _encodable(message: str) -> str:
    """Returns the message in a form that UTF-8 can encode: a shell passes on arguments that are not."""
    return message.encode("utf-8", "backslashreplace").decode()


def _children_by_parent(view: TokenHierarchy, tokens: Sequence[TokenRecord]) -> dict[str | None, list[TokenRecord]]:
    """Returns tokens by the id of their nearest ancestor among ``tokens``; None has those without one."""
    known = {record.id for record in tokens}
    children: dict[str | None, list[TokenRecord]] = {}
    for record in tokens:
        ancestors = (parent.id for parent in view.parents(record) or () if parent.id in known)
        children.setdefault(next(ancestors, None), []).append(record)
    return children


def _single_page(total: int) -> dict[str, Any]:
    """Returns the management API's pagination object; the command line shows everything on one page."""
    return {
        "page": 1,
        "per_page": total,
        "total": total,
        "total_pages": 1,
        "has_next": False,
        "has_prev": False,
    }
