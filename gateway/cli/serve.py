"""The command ``gateway``: loads and checks the settings, prints a banner and serves."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway import __version__
from gateway.app import App, WorkerShared
from gateway.auth.principal import Mode
from gateway.cli.console import ArgumentParser, print_lines
from gateway.config import paths, settings
from gateway.config.settings import ConfigurationError, Problem, Settings
from gateway.observability import logging as log
from gateway.providers import registry
from gateway.server import worker
from gateway.server.aiohttp_server import ParserMissing, require_c_parser
from gateway.server.supervisor import Supervisor
from gateway.tokens.store import TokensDamaged
from gateway.tokens.stores.json_file import JsonTokenFile
from gateway.usage.pricing.prices import read_price_table

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal stops it. Returns the exit code: 0 stopped, 1 cannot listen, 78 invalid configuration."""
    arguments = _parser().parse_args(argv)
    try:
        require_c_parser()
        loaded = _load_settings(arguments)
    except (ConfigurationError, ParserMissing) as error:
        print_lines(sys.stderr, "The configuration cannot be used:", *_indented(str(error)))
        return EXIT_CONFIGURATION
    if arguments.check:
        print_lines(sys.stdout, "The configuration is good.", *(f"  - {warned}" for warned in loaded.warnings))
        return 0
    log.configure(loaded.log_format, loaded.log_level, loaded.secrets)
    for warned in loaded.warnings:
        logging.getLogger("gateway").warning("%s", warned)
    try:
        listener = worker.bind(loaded.host, loaded.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        print_lines(sys.stderr, f"Cannot listen on {loaded.host}:{loaded.port}: {reason}")
        return EXIT_FAILED
    return _serve(loaded, listener)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="gateway", description="Serve OpenAI's API behind keys.")
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


def _load_settings(arguments: argparse.Namespace) -> Settings:
    """Returns the settings after a check of the files and names in them. Raises ConfigurationError with all problems.

    A mistake there must end the start, not the first request.
    """
    problems: list[Problem] = []
    try:
        loaded = settings.load(os.environ, env_file=arguments.env_file, overrides=_overrides(arguments))
    except ConfigurationError as error:
        problems += error.problems
        with contextlib.suppress(ConfigurationError):  # its problems are among those already
            problems += _token_file_problems(paths.data_paths(os.environ, arguments.env_file).tokens_file)
        raise ConfigurationError(problems) from None
    problems += _token_file_problems(loaded.tokens_file)
    try:
        read_price_table(loaded.prices)
    except ValueError as error:
        problems.append(Problem("GATEWAY_CONFIG", str(error)))
    try:
        registry.find(loaded.backend)
    except registry.UnknownProvider as error:
        problems.append(Problem("GATEWAY_BACKEND", str(error)))
    if problems:
        raise ConfigurationError(problems)
    return loaded


def _token_file_problems(path: Path) -> list[Problem]:
    if path.is_symlink() and not path.exists():
        # Perhaps a volume is not mounted yet. Without the file the gateway would serve in open mode.
        return [Problem("GATEWAY_TOKENS_FILE", f"{path} is a link that leads nowhere")]
    try:
        with contextlib.closing(JsonTokenFile(path)) as file:
            asyncio.run(file.read())
    except TokensDamaged as error:
        return [Problem("GATEWAY_TOKENS_FILE", str(error))]
    except OSError as error:
        return [Problem("GATEWAY_TOKENS_FILE", f"{path}: {error.strerror or error}")]
    return []


def _serve(loaded: Settings, listener: socket.socket) -> int:
    address = _address(listener)
    shared = WorkerShared.new(loaded.workers)

    def announce(app: App) -> None:
        _tune_garbage_collector()
        _print_banner(loaded, app, address)

    if loaded.workers == 1:
        worker.run(_serving(loaded, shared, announce), listener)
        return 0
    supervisor = os.getpid()

    def work(number: int) -> None:
        on_ready = announce if number == 0 else lambda _app: _tune_garbage_collector()
        worker.run(_serving(loaded, shared._replace(worker=number), on_ready), listener, supervisor)

    return Supervisor(work, loaded.workers, loaded.drain_seconds).run()


def _serving(loaded: Settings, shared: WorkerShared, on_ready: Callable[[App], None]) -> worker.Serving[App]:
    return worker.Serving(lambda: App(loaded, shared=shared), loaded.drain_seconds, on_ready)


def _tune_garbage_collector() -> None:
    """Makes the garbage collector skip the objects that exist now, and run less often.

    What start-up created lives as long as the process. A request creates few reference cycles, and a collection after every
    700 new objects, Python's default, took three per cent of all time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _print_banner(loaded: Settings, app: App, address: str) -> None:
    # A wildcard address is one to listen on, and not one to call.
    reachable = address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    command = _example_command(app.mode, app.backend_name, reachable)
    if log.wants_json(loaded.log_format, sys.stderr):
        logging.getLogger("gateway").info(
            "serving",
            extra={"mode": app.mode.value, "backend": app.backend_name, "address": address, "try": command},
        )
        return
    remark = "  (no keys yet: loopback only; behind a proxy, create a token)" if app.mode is Mode.OPEN else ""
    backend = app.backend_name
    if loaded.backend == "echo":
        backend += "  (offline: answers with what you say; set GATEWAY_UPSTREAM_URL to use a model)"
    lines = [
        f"gateway {__version__}",
        f"  address  {address}",
        f"  mode     {app.mode.value}{remark}",
        f"  backend  {backend}" + (f"  -> {loaded.upstream_url}" if loaded.upstream_url else ""),
        f"  try      {command}",
    ]
    print_lines(sys.stderr, *lines)


def _example_command(mode: Mode, backend: str, address: str) -> str:
    """Returns a command that sends the first request."""
    key = "" if mode is Mode.OPEN else " -H 'Authorization: Bearer YOUR_KEY'"
    if backend != "echo":
        return f"curl {address}/v1/models{key}"
    body = '{"model":"echo","messages":[{"role":"user","content":"Hello!"}]}'
    return f"curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def _indented(text: str) -> list[str]:
    return [f"  - {line}" for line in text.splitlines()]
