"""The command ``gateway``: loads and checks the settings, prints a banner and serves."""

import argparse
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway import __version__
from gateway.app import App, WorkerShared
from gateway.auth.principal import Mode
from gateway.cli import start
from gateway.cli.console import ArgumentParser, print_lines
from gateway.cli.reload import Reloader
from gateway.config.settings import ConfigurationError, Settings
from gateway.observability import logging as log
from gateway.server import worker
from gateway.server.aiohttp_server import ParserMissing, require_c_parser
from gateway.server.supervisor import Supervisor

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until a signal stops it. Returns the exit code: 0 stopped, 1 cannot listen, 78 invalid configuration."""
    arguments = _parser().parse_args(argv)
    with _signals_blocked():
        return _start(arguments)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Lets a reload and an end wait until the gateway serves. Before, SIGHUP would end it; as the first process of a container it
    would not hear SIGTERM."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(arguments: argparse.Namespace) -> int:
    try:
        require_c_parser()
        loaded = start.load_settings(arguments)
    except (ConfigurationError, ParserMissing) as error:
        return _refuse(error)
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
    try:
        lock = start.lock_data_folder(loaded)
    except ConfigurationError as error:
        return _refuse(error)
    start.warn_of_mounted_token_file(loaded.tokens_file)
    start.warn_of_missing_temporary_folder()
    reloader = Reloader(loaded, lambda: start.load_settings(arguments))
    with contextlib.closing(lock):
        return _serve(reloader, listener)


def _refuse(error: Exception) -> int:
    print_lines(sys.stderr, "The configuration cannot be used:", *_indented(str(error)))
    return EXIT_CONFIGURATION


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


def _serve(reloader: Reloader, listener: socket.socket) -> int:
    loaded = reloader.settings
    address = _address(listener)
    shared = WorkerShared.new(loaded.workers)

    def announce(app: App) -> None:
        _tune_garbage_collector()
        _print_banner(loaded, app, address)

    if loaded.workers == 1:
        worker.run(_serving(reloader, shared, announce), listener)
        return 0
    supervisor = os.getpid()

    def work(number: int) -> None:
        on_ready = announce if number == 0 else lambda _app: _tune_garbage_collector()
        worker.run(_serving(reloader, shared._replace(worker=number), on_ready), listener, supervisor)

    return Supervisor(
        work, loaded.workers, loaded.drain_delay + loaded.drain_seconds, listener.close, reloader.reload
    ).run()


def _serving(reloader: Reloader, shared: WorkerShared, on_ready: Callable[[App], None]) -> worker.Serving[App]:
    loaded = reloader.settings  # a worker that is started later begins with the newest
    return worker.Serving(
        lambda: App(loaded, shared=shared),
        loaded.drain_delay,
        loaded.drain_seconds,
        on_ready,
        reloader.reload_app,
        loaded.max_header_bytes,
    )


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
