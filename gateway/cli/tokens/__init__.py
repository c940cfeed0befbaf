"""``token_manager.py``: tokens by hand. ``arguments`` says what can be asked, ``commands`` does it, ``output``
shows it.

It starts fast, because nothing of the server is imported, and needs no server to run.
"""

import argparse
import io
import os
import pwd
import sys
from collections.abc import Sequence

from gateway.audit.hash_chain import Actor
from gateway.audit.log import AUDIT_FILE, AuditLog
from gateway.cli.tokens import arguments, commands, output
from gateway.cli.tokens.commands import CommandContext
from gateway.config import settings
from gateway.config.settings import ConfigurationError
from gateway.core.clock import SteadyClock
from gateway.tokens.changes import ChangeRefused
from gateway.tokens.lookup import AmbiguousToken, NoSuchToken
from gateway.tokens.service import TokenService
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenFileError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 not possible, 2 wrong usage, 78 the configuration or the token file is broken."""
    asked = arguments.parser().parse_args(argv)
    if sys.stdout is None or sys.stderr is None:
        return EXIT_FAILED  # there is nobody to be told, not even a secret
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # The marks must not fail in a bare environment.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    printer = output.Printer(sys.stdout, sys.stderr, as_json=asked.json, in_colour=in_colour)
    try:
        code = _run(asked, printer)
        printer.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        # Nobody reads on, `list | head`: Python's own last flush must not complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"token_manager.py: {error}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _run(asked: argparse.Namespace, printer: output.Printer) -> int:
    clock = SteadyClock()
    try:
        data_paths = settings.data_paths(os.environ)
        audit = AuditLog(data_paths.data_dir / AUDIT_FILE, clock)
        service = TokenService(JsonTokenFile(data_paths.tokens_file), audit, clock)
    except ConfigurationError as error:
        printer.failed(str(error))
        return EXIT_CONFIGURATION
    try:
        return commands.run(asked, CommandContext(service, audit, printer, clock, _actor(), data_paths.data_dir))
    except AmbiguousToken as error:
        printer.ambiguous(service.view(), error, clock())
        return EXIT_FAILED
    except commands.UsageError as error:
        printer.failed(str(error))
        return EXIT_USAGE
    except TokenFileError as error:
        printer.failed(str(error))
        return EXIT_CONFIGURATION
    except BrokenPipeError:
        raise
    except ChangeRefused as error:
        printer.failed(f"{error} ({error.field})" if error.field else str(error))
        return EXIT_FAILED
    except (NoSuchToken, OSError) as error:
        printer.failed(str(error))
        return EXIT_FAILED


def _actor() -> Actor:
    """Whoever sits at this machine, by the name that the system has for them."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    return Actor("command line", name)
