"""Gateways to test: in this process on a real socket, and as a process of its own."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.app import App
from gateway.config import settings
from gateway.server.aiohttp_server import AiohttpServer

ROOT = Path(__file__).parents[2]
KEY = "sk-made-up-environment-key-for-tests"


@dataclass
class Running:
    """A gateway in this process. ``app`` is open to inspection."""

    app: App
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def load_settings(folder: Path, **values: str) -> settings.Settings:
    """Settings from these values alone; the token file lies in ``folder``."""
    places = {"GATEWAY_TOKENS_FILE": str(folder / "api_tokens.json"), "GATEWAY_DATA_DIR": str(folder / "data")}
    environ = {**places, "GATEWAY_LOG_LEVEL": "warning", **values}
    empty = folder / "empty.env"
    empty.touch()
    return settings.load(environ, env_file=empty)


@asynccontextmanager
async def running_gateway(
    folder: Path, *, made_of: Mapping[str, Any] | None = None, **values: str
) -> AsyncIterator[Running]:
    """``made_of`` goes to ``App``; ``values`` are settings."""
    app = App(load_settings(folder, **values), **(made_of or {}))
    await app.start()
    loop = asyncio.get_running_loop()
    http = AiohttpServer(app.pipeline)
    server = await loop.create_server(http, "127.0.0.1", 0)
    try:
        yield Running(app, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        http.pre_shutdown()
        await app.drain(0)
        await http.shutdown(1.0)
        await app.stop()


@dataclass
class Process:
    """A gateway in its own process."""

    popen: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(60)


def environment(folder: Path, **values: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG") or "COVERAGE" in name}
    return {**kept, "PYTHONPATH": str(ROOT), "GATEWAY_TOKENS_FILE": str(folder / "api_tokens.json"), **values}


@contextmanager
def gateway_process(folder: Path, log_format: str = "json", **values: str) -> Iterator[Process]:
    """Runs ``python -m gateway`` in ``folder`` on a free port and waits until it answers."""
    log = folder / "gateway.log"
    with log.open("wb") as stream:
        popen = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            cwd=folder,
            env=environment(folder, GATEWAY_PORT="0", GATEWAY_LOG_FORMAT=log_format, **values),
            stdout=stream,
            stderr=stream,
        )
    try:
        yield Process(popen, _wait_for_port(popen, log), log)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(30)


_ADDRESS = re.compile(r'(?:"address":"|\n  address  )http://[0-9.]+:(\d+)')
"""In the first line of a log for machines, and in the banner for people."""


def _wait_for_port(popen: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if said := _ADDRESS.search(log.read_text()):
            port = int(said[1])
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            return port
        if popen.poll() is not None:
            break
        select_a_moment()
    raise AssertionError(f"the gateway did not start: {log.read_text()[-2000:]}")


def select_a_moment(seconds: float = 0.02) -> None:
    """Between two looks at another process. Every loop around it has a deadline."""
    signal.sigtimedwait([], seconds)


def token_manager(
    folder: Path, *arguments: str, stdin: bytes = b"", **values: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command line in ``folder``."""
    return subprocess.run(
        [sys.executable, str(ROOT / "token_manager.py"), *arguments],
        cwd=folder,
        env=environment(folder, **values),
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
