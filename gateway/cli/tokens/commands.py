"""Runs the commands. Errors are raised; ``gateway.cli.tokens.main`` turns them into exit codes."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import Actor
from gateway.audit.log import AuditLog
from gateway.cli.tokens import options, selection
from gateway.cli.tokens.arguments import completion_script
from gateway.cli.tokens.confirmation import NoAnswer, is_confirmed
from gateway.cli.tokens.output import Printer
from gateway.tokens import expiry, lookup, operations, secret
from gateway.tokens.hierarchy import TokenHierarchy
from gateway.tokens.models import Status, TokenRecord
from gateway.tokens.store import TokenStore
from gateway.tokens.stores import import_formats

T = TypeVar("T")


class UsageError(Exception):
    """Tells that the arguments make no sense together. Exit code 2."""


class CommandContext(NamedTuple):
    """Holds what commands work with. ``clock`` returns seconds since the epoch."""

    store: TokenStore
    runner: asyncio.Runner
    audit: AuditLog
    printer: Printer
    clock: Callable[[], float]
    actor: Actor
    data_dir: Path

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Returns what an operation on the store returns. Raises what it raises."""
        return self.runner.run(operation)

    def tokens(self) -> TokenHierarchy:
        """Returns the newest tokens; none where there is no store. Raises TokensDamaged, OSError."""
        return self.run(operations.read_or_empty(self.store))

    def find(self, reference: str) -> TokenRecord:
        """Returns the token that a reference means. Raises NoSuchToken, AmbiguousToken, TokensDamaged, OSError."""
        return lookup.find(self.tokens().records, reference)


def run(arguments: argparse.Namespace, context: CommandContext) -> int:
    """Runs the command that the arguments name. Returns the exit code.

    Raises UsageError, ChangeRefused, NoSuchToken, AmbiguousToken, TokensDamaged, OSError.
    """
    return _COMMANDS[arguments.command](arguments, context) or 0


def _create(arguments: argparse.Namespace, context: CommandContext) -> None:
    parent_id = None if arguments.parent is None else context.find(arguments.parent).id
    try:
        spec = options.new_token(arguments, parent_id, context.clock())
    except ValueError as error:
        raise UsageError(str(error)) from None
    created = context.run(operations.create(context.store, context.actor, spec))
    try:
        context.printer.print_created(context.tokens(), created, context.clock())
        context.printer.flush()
    except (OSError, ValueError):
        # Nobody has seen the secret, so nobody could use the token.
        context.run(operations.delete(context.store, context.actor, created.record.id))
        raise


def _update(arguments: argparse.Namespace, context: CommandContext) -> None:
    now = context.clock()

    def changed(record: TokenRecord) -> dict[str, Any]:
        try:
            return options.changed_fields(arguments, record, now)
        except ValueError as error:
            raise UsageError(str(error)) from None

    if not changed(context.find(arguments.token)):
        raise UsageError("nothing to change: name what shall be different, such as --expires 90d (see update --help)")
    change = context.run(operations.update(context.store, context.actor, arguments.token, changed))
    context.printer.print_updated(context.tokens(), change, now)


def _list(arguments: argparse.Namespace, context: CommandContext) -> None:
    tokens, now = context.tokens(), context.clock()
    found = selection.select(tokens, arguments, now)
    if arguments.tree:
        context.printer.print_tree(tokens, found, now)
    elif arguments.table:
        context.printer.print_table(tokens, found, now)
    else:
        context.printer.print_list(tokens, found, now)


def _show(arguments: argparse.Namespace, context: CommandContext) -> None:
    context.printer.print_token(context.tokens(), context.find(arguments.token), context.clock())


def _revoke(arguments: argparse.Namespace, context: CommandContext) -> int:
    tokens = context.tokens()
    match = lookup.find_secret(tokens.records, arguments.token)
    if match.previous is None:
        below = sum(1 for _ in tokens.descendants(match.record))
        children = f", and the {below} below it," if below else ""
        question = f"Revoke {match.record.name!r} ({match.record.prefix}...){children} for ever?"
    else:
        question = f"End the replaced secret {match.previous.prefix}... of {match.record.name!r}?"
    if not _may_end(arguments, context, question):
        context.printer.print_error("nothing was revoked")
        return 1
    change = context.run(operations.revoke(context.store, context.actor, arguments.token))
    context.printer.print_revoked(context.tokens(), change, context.clock())
    return 0


def _delete(arguments: argparse.Namespace, context: CommandContext) -> int:
    tokens = context.tokens()
    found = context.find(arguments.token)
    below = sum(1 for _ in tokens.descendants(found))
    children = f" Its {below} child token(s) will be revoked." if below else ""
    if not _may_end(arguments, context, f"Delete {found.name!r} ({found.prefix}...)?{children}"):
        context.printer.print_error("nothing was deleted")
        return 1
    context.run(operations.delete(context.store, context.actor, found.id))
    context.printer.print_deleted(tokens, found, context.clock())
    return 0


def _may_end(arguments: argparse.Namespace, context: CommandContext, question: str) -> bool:
    """Returns whether a token may be ended. Raises UsageError where standard input is no answer."""
    try:
        return bool(arguments.yes) or is_confirmed(context.printer, question)
    except NoAnswer as error:
        raise UsageError(f"nothing was changed: {error}") from None


def _rotate(arguments: argparse.Namespace, context: CommandContext) -> None:
    try:
        grace = expiry.span(arguments.grace)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rotated = context.run(operations.rotate(context.store, context.actor, arguments.token, grace))
    context.printer.print_rotated(context.tokens(), rotated, context.clock())


def _usage(arguments: argparse.Namespace, context: CommandContext) -> None:
    from gateway.cli.tokens import usage

    if arguments.csv and arguments.json:
        raise UsageError("--json and --csv: one of them")
    tokens, now = context.tokens(), context.clock()
    try:
        since = None if arguments.since is None else expiry.past(arguments.since, now)
    except ValueError as error:
        raise UsageError(str(error)) from None
    token = None if arguments.token is None else context.find(arguments.token)
    report = usage.read_report(tokens, context.data_dir, usage.UsageQuery(arguments.by, since, now, token))
    if arguments.csv:
        context.printer.print_raw(report.as_csv())
    else:
        context.printer.print_usage(report)


def _verify(arguments: argparse.Namespace, context: CommandContext) -> int:
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").strip()
    if not given:
        raise UsageError("there is no secret on standard input")
    tokens, now = context.tokens(), context.clock()
    match = None if secret.has_bad_checksum(given) else tokens.find_by_digest(secret.digest(given))
    context.printer.print_validity(tokens, match, now)
    return 0 if match is not None and tokens.secret_status(match, now) is Status.ACTIVE else 1


def _import(arguments: argparse.Namespace, context: CommandContext) -> None:
    data = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
    offered = import_formats.decode(data, context.clock())
    added = context.run(operations.import_records(context.store, context.actor, offered))
    context.printer.print_imported(context.tokens(), added, context.clock())


def _audit(arguments: argparse.Namespace, context: CommandContext) -> int:
    try:
        lines = list(context.audit.lines())
    except FileNotFoundError:
        lines = []
    if arguments.verify:
        verdict = chain.verify(lines)
        context.printer.print_verdict(verdict)
        return 0 if verdict.broken is None else 1
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(chain.read(line))
        except ValueError as error:
            context.printer.print_error(f"{context.audit.path}, line {number} {error}")
            return 1
    context.printer.print_audit_log(entries)
    return 0


def _completion(arguments: argparse.Namespace, context: CommandContext) -> None:
    context.printer.print_completion(arguments.shell, completion_script(arguments.shell))


_COMMANDS: dict[str, Callable[[argparse.Namespace, CommandContext], int | None]] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "update": _update,
    "revoke": _revoke,
    "delete": _delete,
    "rotate": _rotate,
    "usage": _usage,
    "verify": _verify,
    "import": _import,
    "audit": _audit,
    "completion": _completion,
}
