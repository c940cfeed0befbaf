"""What each command does. Errors are raised; ``gateway.cli.main`` knows their exit codes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.cli.output import Printer
from gateway.tokens import fields, lifetime, secret
from gateway.tokens.record import Role, Status, TokenRecord
from gateway.tokens.service import TokenService, TokenWish


class UsageError(Exception):
    """What was asked for makes no sense. Exit code 2."""


def run(asked: argparse.Namespace, service: TokenService, printer: Printer, clock: Callable[[], float]) -> int:
    """Do what was asked. Answers the exit code."""
    match asked.command:
        case "create":
            _create(asked, service, printer, clock())
        case "list":
            printer.listed(_selected(asked, service.all(), clock()), clock())
        case "show":
            printer.shown(service.find(asked.token), clock())
        case "revoke":
            printer.changed("Revoked", service.revoke(asked.token), clock())
        case "delete":
            return _delete(asked, service, printer, clock())
        case "verify":
            return _verify(service, printer, clock())
        case "import":
            data = sys.stdin.buffer.read() if asked.file == "-" else Path(asked.file).read_bytes()
            printer.imported(service.import_file(data), clock())
    return 0


def _create(asked: argparse.Namespace, service: TokenService, printer: Printer, now: float) -> None:
    made = service.create(_wish(asked, now))
    try:
        printer.created(made.record, made.secret, now)
        printer.flush()
    except (OSError, ValueError):
        # The secret has reached nobody: a token that nobody can use must not stay.
        service.delete(made.record.id)
        raise


def _wish(asked: argparse.Namespace, now: float) -> TokenWish:
    try:
        return TokenWish(
            name=fields.name(asked.name),
            owner=fields.owner(asked.owner),
            role=Role(asked.role),
            expires_at=lifetime.expiry(asked.expires, now),
            models=fields.models(_split(asked.models)),
            secret_prefix=asked.prefix,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _split(models: str | None) -> list[str] | None:
    return None if models is None else [part.strip() for part in models.split(",")]


def _selected(asked: argparse.Namespace, tokens: tuple[TokenRecord, ...], now: float) -> list[TokenRecord]:
    wanted = Status(asked.status) if asked.status else None
    return [
        record
        for record in tokens
        if asked.owner in (None, record.owner) and (wanted is None or record.status(now) is wanted)
    ]


def _delete(asked: argparse.Namespace, service: TokenService, printer: Printer, now: float) -> int:
    found = service.find(asked.token)
    # In a pipe nobody is there to be asked.
    if not asked.yes and sys.stdin.isatty() and not printer.confirmed(f"Delete {found.name!r} ({found.prefix}...)?"):
        printer.failed("nothing was deleted")
        return 1
    printer.changed("Deleted", service.delete(found.id), now)
    return 0


def _verify(service: TokenService, printer: Printer, now: float) -> int:
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").strip()
    if not given:
        raise UsageError("there is no secret on standard input")
    digest = secret.digest(given)
    known = None if secret.is_mistyped(given) else digest
    record = next((record for record in service.all() if record.hash == known), None)
    printer.verified(record, now)
    return 0 if record is not None and record.status(now) is Status.ACTIVE else 1
