"""What each command does. Errors are raised; ``gateway.cli.tokens.main`` knows their exit codes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from msgspec import UNSET

from gateway.audit import hash_chain as chain
from gateway.audit.hash_chain import Actor
from gateway.audit.log import AuditLog
from gateway.cli.tokens.output import Printer
from gateway.limits.config import read_limits
from gateway.tokens import expiry, secret, validation
from gateway.tokens.changes import TokenSpec
from gateway.tokens.models import Role, Status, TokenRecord
from gateway.tokens.service import TokenService


class UsageError(Exception):
    """What was asked for makes no sense. Exit code 2."""


class CommandContext(NamedTuple):
    """What commands work with."""

    service: TokenService
    audit: AuditLog
    printer: Printer
    clock: Callable[[], float]
    actor: Actor
    data_dir: Path


def run(asked: argparse.Namespace, context: CommandContext) -> int:
    """Do what was asked. Answers the exit code."""
    return _COMMANDS[asked.command](asked, context) or 0


def _create(asked: argparse.Namespace, context: CommandContext) -> None:
    made = context.service.create(context.actor, _spec(asked, context))
    try:
        context.printer.created(context.service.view(), made, context.clock())
        context.printer.flush()
    except (OSError, ValueError):
        # The secret has reached nobody: a token that nobody can use must not stay.
        context.service.delete(context.actor, made.record.id)
        raise


def _spec(asked: argparse.Namespace, context: CommandContext) -> TokenSpec:
    limits = {
        name: value for name in ("rpm", "tpm", "max_parallel", "budget") if (value := getattr(asked, name)) is not None
    }
    try:
        return TokenSpec(
            name=validation.name(asked.name),
            owner=UNSET if asked.owner is None else validation.owner(asked.owner),
            role=UNSET if asked.role is None else Role(asked.role),
            parent_id=None if asked.parent is None else context.service.find(asked.parent).id,
            expires_at=UNSET if asked.expires is None else expiry.expiry(asked.expires, context.clock()),
            models=UNSET
            if asked.models is None
            else validation.models([part.strip() for part in asked.models.split(",")]),
            limits=read_limits(limits) if limits else UNSET,
            prefix=UNSET if asked.prefix is None else asked.prefix,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _list(asked: argparse.Namespace, context: CommandContext) -> None:
    view, now = context.service.view(), context.clock()
    wanted = Status(asked.status) if asked.status else None
    found = [
        record
        for record in view.document.tokens
        if asked.owner in (None, record.owner) and (wanted is None or view.status(record, now) is wanted)
    ]
    show = context.printer.tree if asked.tree else context.printer.listed
    show(view, found, now)


def _show(asked: argparse.Namespace, context: CommandContext) -> None:
    context.printer.shown(context.service.view(), context.service.find(asked.token), context.clock())


def _revoke(asked: argparse.Namespace, context: CommandContext) -> None:
    change = context.service.revoke(context.actor, asked.token)
    context.printer.revoked(context.service.view(), change, context.clock())


def _delete(asked: argparse.Namespace, context: CommandContext) -> int:
    view = context.service.view()
    found = context.service.find(asked.token)
    below = sum(1 for _ in view.descendants(found))
    # In a pipe nobody is there to be asked.
    if not asked.yes and sys.stdin.isatty() and not context.printer.confirmed(_question(found, below)):
        context.printer.failed("nothing was deleted")
        return 1
    context.service.delete(context.actor, found.id)
    context.printer.deleted(view, found, context.clock())
    return 0


def _question(found: TokenRecord, below: int) -> str:
    children = f" Its {below} child token(s) will be revoked." if below else ""
    return f"Delete {found.name!r} ({found.prefix}...)?{children}"


def _rotate(asked: argparse.Namespace, context: CommandContext) -> None:
    try:
        grace = expiry.span(asked.grace)
    except ValueError as error:
        raise UsageError(str(error)) from None
    made = context.service.rotate(context.actor, asked.token, grace)
    context.printer.rotated(context.service.view(), made, context.clock())


def _usage(asked: argparse.Namespace, context: CommandContext) -> None:
    from gateway.cli.tokens import usage

    if asked.csv and asked.json:
        raise UsageError("--json and --csv: one of them")
    view, now = context.service.view(), context.clock()
    try:
        since = None if asked.since is None else max(int(now) - expiry.span(asked.since), 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    token = None if asked.token is None else context.service.find(asked.token)
    wanted = usage.Asked(asked.by, since, now, token)
    report = usage.gather(view, context.data_dir, wanted)
    if asked.csv:
        context.printer.text(usage.as_csv(report, wanted))
    else:
        context.printer.usage(
            lambda: usage.as_json(view, report, wanted), lambda out: usage.write(out, view, report, wanted)
        )


def _verify(asked: argparse.Namespace, context: CommandContext) -> int:
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").strip()
    if not given:
        raise UsageError("there is no secret on standard input")
    view, now = context.service.view(), context.clock()
    match = None if secret.has_bad_checksum(given) else view.find_by_digest(secret.digest(given))
    context.printer.verified(view, match, now)
    return 0 if match is not None and view.secret_status(match, now) is Status.ACTIVE else 1


def _import(asked: argparse.Namespace, context: CommandContext) -> None:
    data = sys.stdin.buffer.read() if asked.file == "-" else Path(asked.file).read_bytes()
    added = context.service.import_file(context.actor, data)
    context.printer.imported(context.service.view(), added, context.clock())


def _audit(asked: argparse.Namespace, context: CommandContext) -> int:
    try:
        lines = list(context.audit.lines())
    except FileNotFoundError:
        lines = []
    if asked.verify:
        verdict = chain.verify(lines)
        context.printer.verdict(verdict)
        return 0 if verdict.broken is None else 1
    entries = []
    for place, line in enumerate(lines, 1):
        try:
            entries.append(chain.read(line))
        except ValueError as error:
            context.printer.failed(f"{context.audit.path}, line {place} {error}")
            return 1
    context.printer.audit(entries)
    return 0


def _completion(asked: argparse.Namespace, context: CommandContext) -> None:
    from gateway.cli.tokens import completion

    context.printer.script(asked.shell, completion.script(asked.shell))


_COMMANDS: dict[str, Callable[[argparse.Namespace, CommandContext], int | None]] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "revoke": _revoke,
    "delete": _delete,
    "rotate": _rotate,
    "usage": _usage,
    "verify": _verify,
    "import": _import,
    "audit": _audit,
    "completion": _completion,
}
