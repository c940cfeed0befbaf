"""The command ``token_manager.py``: ``arguments`` defines what can be asked, ``commands`` does it, ``output`` prints it.

It needs no running gateway, and it starts fast because it imports nothing of the server.
"""

import argparse
import asyncio
import contextlib
import gc
import io
import os
import pwd
import sys
from collections.abc import Iterator, Sequence

from gateway.audit.hash_chain import Actor
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.cli import paths
from gateway.cli.console import WrongUsage, discard_output, print_lines
from gateway.cli.tokens import arguments, commands, output
from gateway.cli.tokens.commands import CommandContext
from gateway.config.settings import ConfigurationError
from gateway.core.clock import SteadyClock
from gateway.tokens.changes import ChangeRefused
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores.json_file import JsonTokenFile, JsonTokenStore

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0 done, 1 failed, 2 wrong arguments, 78 invalid configuration or token file."""
    given = sys.argv[1:] if argv is None else argv
    try:
        parsed, wrong_usage = arguments.parser().parse_args(given), None
    except WrongUsage as error:
        parsed, wrong_usage = argparse.Namespace(json=arguments.wants_json(given), command=None), error
    if sys.stdout is None or sys.stderr is None:
        return EXIT_FAILED  # started without a standard stream: a secret could be shown to nobody
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The check marks must not fail where the locale is C.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    url = paths.client_url(os.environ)
    printer = output.create_printer(sys.stdout, sys.stderr, as_json=parsed.json, in_colour=in_colour, client_url=url)
    try:
        with _without_garbage_collector():
            code = _run(parsed, printer) if wrong_usage is None else _refuse(wrong_usage, printer)
        printer.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        discard_output()
        if isinstance(error, BrokenPipeError) and parsed.command not in arguments.SHOW_A_SECRET:
            return 0  # the reader has seen enough, as in `list | head`
        print_lines(sys.stderr, f"token_manager.py: {error}")
        return EXIT_FAILED
    return code


@contextlib.contextmanager
def _without_garbage_collector() -> Iterator[None]:
    """Collects nothing in the block. A command ends soon, and with 100,000 tokens collecting took two thirds of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _refuse(error: WrongUsage, printer: output.Printer) -> int:
    printer.print_wrong_usage(error)
    return EXIT_USAGE


def _run(parsed: argparse.Namespace, printer: output.Printer) -> int:
    clock = SteadyClock()
    try:
        data_paths = paths.data_paths(os.environ)
    except ConfigurationError as error:
        printer.print_error("; ".join(map(str, error.problems)))
        return EXIT_CONFIGURATION
    audit = AuditLog(data_paths.data_dir / AUDIT_FILE, clock)
    store = JsonTokenStore(JsonTokenFile(data_paths.tokens_file), audit, clock)
    with asyncio.Runner() as runner:
        context = CommandContext(store, runner, audit, printer, clock, _actor(), data_paths.data_dir)
        return _run_command(parsed, context)


def _run_command(parsed: argparse.Namespace, context: CommandContext) -> int:
    printer = context.printer
    try:
        return commands.run(parsed, context)
    except AmbiguousToken as error:
        printer.print_ambiguous(context.tokens(), error, context.clock())
        return EXIT_FAILED
    except commands.UsageError as error:
        printer.print_error(str(error))
        return EXIT_USAGE
    except TokensDamaged as error:
        printer.print_error(str(error))
        return EXIT_CONFIGURATION
    except BrokenPipeError:
        raise
    except ChangeRefused as error:
        printer.print_error(f"{error} ({error.field})" if error.field else str(error))
        return EXIT_FAILED
    except (NoSuchToken, OSError) as error:
        printer.print_error(str(error))
        return EXIT_FAILED


def _actor() -> Actor:
    """Returns the user of this machine who runs the command, by the system's name for them."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return Actor("command line", name)
