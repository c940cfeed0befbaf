"""``python -m gateway``: read the settings, say what is going to happen, serve."""

import argparse
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__
from gateway.app import App, WorkerShared
from gateway.auth.principal import Mode
from gateway.config import settings
from gateway.config.settings import ConfigurationError, Problem, Settings
from gateway.observability import logging as log
from gateway.providers import registry
from gateway.server import worker
from gateway.server.aiohttp_server import ParserMissing, require_c_parser
from gateway.server.supervisor import Supervisor
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.tokens.stores.json_format import TokenFileError
from gateway.usage.pricing.prices import read_price_table

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        require_c_parser()
        found = _load(arguments)
    except (ConfigurationError, ParserMissing) as error:
        print(f"The configuration cannot be used:\n{_indented(str(error))}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if arguments.check:
        print("The configuration is good.")
        return 0
    log.configure(found.log_format, found.log_level, found.secrets)
    try:
        listener = worker.bind(found.host, found.port)
    except (OSError, UnicodeError) as error:
        print(
            f"Cannot listen on {found.host}:{found.port}: {getattr(error, 'strerror', None) or error}", file=sys.stderr
        )
        return EXIT_FAILED
    return _serve(found, listener)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gateway", description="Serve OpenAI's API behind keys.")
    parser.add_argument("--host", help="address to listen on (GATEWAY_HOST)")
    parser.add_argument("--port", help="port to listen on (GATEWAY_PORT)")
    parser.add_argument("--workers", help="number of processes (GATEWAY_WORKERS)")
    parser.add_argument("--config", help="TOML file (GATEWAY_CONFIG)")
    parser.add_argument("--env-file", type=Path, help="read this instead of .env")
    parser.add_argument("--check", action="store_true", help="validate the settings and exit")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    return parser


def _overrides(arguments: argparse.Namespace) -> dict[str, str]:
    named = ("host", "port", "workers", "config")
    return {f"GATEWAY_{name.upper()}": value for name in named if (value := getattr(arguments, name)) is not None}


def _load(arguments: argparse.Namespace) -> Settings:
    """The settings, and a first look at what they name: a mistake there ends the start, not the first request.

    Raises ConfigurationError with everything that is wrong.
    """
    problems: list[Problem] = []
    try:
        found = settings.load(os.environ, env_file=arguments.env_file, overrides=_overrides(arguments))
    except ConfigurationError as error:
        problems += error.problems
        with contextlib.suppress(ConfigurationError):  # what is wrong there is among the problems already
            problems += _problems_with_tokens(settings.data_paths(os.environ, arguments.env_file).tokens_file)
        raise ConfigurationError(problems) from None
    problems += _problems_with_tokens(found.tokens_file)
    try:
        read_price_table(found.prices)
    except ValueError as error:
        problems.append(Problem("GATEWAY_CONFIG", str(error)))
    try:
        registry.find(found.backend)
    except registry.UnknownProvider as error:
        problems.append(Problem("GATEWAY_BACKEND", str(error)))
    if problems:
        raise ConfigurationError(problems)
    return found


def _problems_with_tokens(path: Path) -> list[Problem]:
    if path.is_symlink() and not path.exists():
        # Perhaps a volume that is not mounted yet: no reason to be open.
        return [Problem("GATEWAY_TOKENS_FILE", f"{path} is a link that leads nowhere")]
    try:
        JsonTokenFile(path).read()
    except TokenFileError as error:
        return [Problem("GATEWAY_TOKENS_FILE", str(error))]
    except OSError as error:
        return [Problem("GATEWAY_TOKENS_FILE", f"{path}: {error.strerror or error}")]
    return []


def _serve(found: Settings, listener: socket.socket) -> int:
    address = _address(listener)
    shared = WorkerShared.new(found.workers)

    def announce(app: App) -> None:
        _settle_collector()
        _print_banner(found, app, address)

    if found.workers == 1:
        worker.run(found, listener, shared, announce)
        return 0
    supervisor = os.getpid()

    def work(number: int) -> None:
        ready = announce if number == 0 else lambda app: _settle_collector()
        worker.run(found, listener, shared._replace(worker=number), ready, supervisor)

    return Supervisor(work, found.workers, found.drain_seconds).run()


def _settle_collector() -> None:
    """What start-up made lives for ever: the collector need not look at it again. And a request makes few circles, so it
    need not look every seven hundred objects either: that alone took a thirtieth of all time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _print_banner(found: Settings, app: App, address: str) -> None:
    command = _next_command(app.mode, app.backend_name, address)
    if log.wants_json(found.log_format, sys.stderr):
        logging.getLogger("gateway").info(
            "serving",
            extra={"mode": app.mode.value, "backend": app.backend_name, "address": address, "try": command},
        )
        return
    backend = app.backend_name
    if found.backend == "echo":
        backend += "  (offline: answers with what you say; set GATEWAY_UPSTREAM_URL to use a model)"
    lines = [
        f"gateway {__version__}",
        f"  address  {address}",
        f"  mode     {app.mode.value}" + ("  (no keys yet: loopback only)" if app.mode is Mode.OPEN else ""),
        f"  backend  {backend}" + (f"  -> {found.upstream_url}" if found.upstream_url else ""),
        f"  try      {command}",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _next_command(mode: Mode, backend: str, address: str) -> str:
    key = "" if mode is Mode.OPEN else " -H 'Authorization: Bearer YOUR_KEY'"
    if backend != "echo":
        return f"curl {address}/v1/models{key}"
    body = '{"model":"echo","messages":[{"role":"user","content":"Hello!"}]}'
    return f"curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def _indented(text: str) -> str:
    return "\n".join(f"  - {line}" for line in text.splitlines())
