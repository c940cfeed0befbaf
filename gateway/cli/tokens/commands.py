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


class Desk(NamedTuple):
    """What commands work with."""

    service: TokenService
    audit: AuditLog
    printer: Printer
    clock: Callable[[], float]
    actor: Actor
    data_dir: Path


def run(asked: argparse.Namespace, desk: Desk) -> int:
    """Do what was asked. Answers the exit code."""
    return _COMMANDS[asked.command](asked, desk) or 0


def _create(asked: argparse.Namespace, desk: Desk) -> None:
    made = desk.service.create(desk.actor, _spec(asked, desk))
    try:
        desk.printer.created(desk.service.view(), made, desk.clock())
        desk.printer.flush()
    except (OSError, ValueError):
        # The secret has reached nobody: a token that nobody can use must not stay.
        desk.service.delete(desk.actor, made.record.id)
        raise


def _spec(asked: argparse.Namespace, desk: Desk) -> TokenSpec:
    limits = {
        name: value for name in ("rpm", "tpm", "max_parallel", "budget") if (value := getattr(asked, name)) is not None
    }
    try:
        return TokenSpec(
            name=validation.name(asked.name),
            owner=UNSET if asked.owner is None else validation.owner(asked.owner),
            role=UNSET if asked.role is None else Role(asked.role),
            parent_id=None if asked.parent is None else desk.service.find(asked.parent).id,
            expires_at=UNSET if asked.expires is None else expiry.expiry(asked.expires, desk.clock()),
            models=UNSET
            if asked.models is None
            else validation.models([part.strip() for part in asked.models.split(",")]),
            limits=read_limits(limits) if limits else UNSET,
            prefix=UNSET if asked.prefix is None else asked.prefix,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _list(asked: argparse.Namespace, desk: Desk) -> None:
    view, now = desk.service.view(), desk.clock()
    wanted = Status(asked.status) if asked.status else None
    found = [
        record
        for record in view.document.tokens
        if asked.owner in (None, record.owner) and (wanted is None or view.status(record, now) is wanted)
    ]
    show = desk.printer.tree if asked.tree else desk.printer.listed
    show(view, found, now)


def _show(asked: argparse.Namespace, desk: Desk) -> None:
    desk.printer.shown(desk.service.view(), desk.service.find(asked.token), desk.clock())


def _revoke(asked: argparse.Namespace, desk: Desk) -> None:
    change = desk.service.revoke(desk.actor, asked.token)
    desk.printer.revoked(desk.service.view(), change, desk.clock())


def _delete(asked: argparse.Namespace, desk: Desk) -> int:
    view = desk.service.view()
    found = desk.service.find(asked.token)
    below = sum(1 for _ in view.descendants(found))
    # In a pipe nobody is there to be asked.
    if not asked.yes and sys.stdin.isatty() and not desk.printer.confirmed(_question(found, below)):
        desk.printer.failed("nothing was deleted")
        return 1
    desk.service.delete(desk.actor, found.id)
    desk.printer.deleted(view, found, desk.clock())
    return 0


def _question(found: TokenRecord, below: int) -> str:
    children = f" Its {below} child token(s) will be revoked." if below else ""
    return f"Delete {found.name!r} ({found.prefix}...)?{children}"


def _rotate(asked: argparse.Namespace, desk: Desk) -> None:
    try:
        grace = expiry.span(asked.grace)
    except ValueError as error:
        raise UsageError(str(error)) from None
    made = desk.service.rotate(desk.actor, asked.token, grace)
    desk.printer.rotated(desk.service.view(), made, desk.clock())


def _usage(asked: argparse.Namespace, desk: Desk) -> None:
    from gateway.cli.tokens import usage

    if asked.csv and asked.json:
        raise UsageError("--json and --csv: one of them")
    view, now = desk.service.view(), desk.clock()
    try:
        since = None if asked.since is None else max(int(now) - expiry.span(asked.since), 0)
    except ValueError as error:
        raise UsageError(str(error)) from None
    token = None if asked.token is None else desk.service.find(asked.token)
    wanted = usage.Asked(asked.by, since, now, token)
    report = usage.gather(view, desk.data_dir, wanted)
    if asked.csv:
        desk.printer.text(usage.as_csv(report, wanted))
    else:
        desk.printer.usage(
            lambda: usage.as_json(view, report, wanted), lambda out: usage.write(out, view, report, wanted)
        )


def _verify(asked: argparse.Namespace, desk: Desk) -> int:
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").strip()
    if not given:
        raise UsageError("there is no secret on standard input")
    view, now = desk.service.view(), desk.clock()
    match = None if secret.has_bad_checksum(given) else view.find_by_digest(secret.digest(given))
    desk.printer.verified(view, match, now)
    return 0 if match is not None and view.secret_status(match, now) is Status.ACTIVE else 1


def _import(asked: argparse.Namespace, desk: Desk) -> None:
    data = sys.stdin.buffer.read() if asked.file == "-" else Path(asked.file).read_bytes()
    added = desk.service.import_file(desk.actor, data)
    desk.printer.imported(desk.service.view(), added, desk.clock())


def _audit(asked: argparse.Namespace, desk: Desk) -> int:
    try:
        lines = list(desk.audit.lines())
    except FileNotFoundError:
        lines = []
    if asked.verify:
        verdict = chain.verify(lines)
        desk.printer.verdict(verdict)
        return 0 if verdict.broken is None else 1
    entries = []
    for place, line in enumerate(lines, 1):
        try:
            entries.append(chain.read(line))
        except ValueError as error:
            desk.printer.failed(f"{desk.audit.path}, line {place} {error}")
            return 1
    desk.printer.audit(entries)
    return 0


def _completion(asked: argparse.Namespace, desk: Desk) -> None:
    from gateway.cli.tokens import completion

    desk.printer.script(asked.shell, completion.script(asked.shell))


_COMMANDS: dict[str, Callable[[argparse.Namespace, Desk], int | None]] = {
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
